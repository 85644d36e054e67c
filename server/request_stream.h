#ifndef MNEME_SERVER_REQUEST_STREAM_H_
#define MNEME_SERVER_REQUEST_STREAM_H_

// The part that Append and Generate share: one request's events on their way from the engine to the
// client's stream.

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/channel.h"
#include "engine/error.h"
#include "server/auth.h"
#include "server/call_record.h"
#include "server/convert_status.h"
#include "server/serial.h"
#include "server/service_context.h"
#include "server/stall_watch.h"

namespace mneme {

// When the caller wants to have an answer; InfiniteFuture if it has not said.
inline absl::Time DeadlineOf(const grpc::CallbackServerContext& call) {
  const auto deadline = call.deadline();
  return deadline == std::chrono::system_clock::time_point::max() ? absl::InfiniteFuture()
                                                                  : absl::FromChrono(deadline);
}

// A gRPC reactor over a RequestChannel: one write in flight, then the request's status.
//
// gRPC's reactions, the engine's notifications and their consequences come on any thread and in any
// order. Each leaves a mark and wakes the stream, whose step, one at a time, does what can be done;
// everything but the marks belongs to the step. The stream owns itself until OnDone; the engine's
// notifications hold it weakly, so that one which comes late finds nothing.
template <typename Reactor, typename Response>
class RequestStream : public Reactor,
                      public std::enable_shared_from_this<RequestStream<Reactor, Response>> {
 public:
  RequestStream(const RequestStream&) = delete;
  RequestStream& operator=(const RequestStream&) = delete;
  ~RequestStream() override = default;

  void OnWriteDone(bool ok) final {
    write_mark_.store(ok ? Mark::kOk : Mark::kFailed, std::memory_order_release);
    Wake();
  }
  void OnCancel() final {
    cancel_mark_.store(true, std::memory_order_release);
    Wake();
  }
  void OnDone() final { self_.reset(); }

 protected:
  enum class Mark : uint8_t { kNone, kOk, kFailed };

  RequestStream(const ServiceContext& context, grpc::CallbackServerContext& call, std::string rpc)
      : context_(context),
        call_(call),
        deadline_(DeadlineOf(call)),
        record_(context, std::move(rpc), TenantOf(call, context.trust_tenant_metadata)),
        watch_(std::make_shared<StallWatch>(call, context.engine.options().slow_reader_limit)) {}

  // Makes the stream own itself and runs the first step. Exactly once, right after construction.
  void Start() {
    self_ = this->shared_from_this();
    channel_ = std::make_shared<RequestChannel>([weak = this->weak_from_this()] {
      if (const auto stream = weak.lock()) stream->Wake();
    });
    Wake();
  }

  void Wake() {
    const auto keep = this->shared_from_this();  // OnDone may come while the step runs
    serial_.Run([this] { Step(); });
  }

  // --- For the step. ---
  // Takes in what came from the client, by then submitting the request.
  virtual void StepInput() = 0;
  // Turns an event into a message.
  virtual void ToMessage(const RequestEvent& event, Response* message) = 0;

  // To be called when the request was given to the engine, with `channel()`; from then on it ends
  // when the engine says so.
  void SetSubmitted() { submitted_ = true; }
  bool submitted() const { return submitted_; }

  // Ends the request with `status` (not OK).
  void Abort(const absl::Status& status) {
    if (aborted_) return;
    aborted_ = true;
    if (submitted_) {
      channel_->Cancel(status);
    } else {
      Finish(status);
    }
  }
  bool over() const { return aborted_ || finished_; }

  const std::shared_ptr<RequestChannel>& channel() const { return channel_; }

  const ServiceContext& context_;
  grpc::CallbackServerContext& call_;
  const absl::Time deadline_;
  CallRecord record_;

 private:
  void Step() {
    if (finished_) return;
    if (cancel_mark_.exchange(false, std::memory_order_acquire)) LoseClient();
    StepInput();
    switch (write_mark_.exchange(Mark::kNone, std::memory_order_acquire)) {
      case Mark::kNone:
        break;
      case Mark::kOk:
        EndWrite();
        break;
      case Mark::kFailed:
        EndWrite();
        LoseClient();
    }
    while (submitted_ && !writing_ && !finished_ && NextEvent()) {
    }
    if (submitted_ && writing_ && !client_lost_) WatchReader();
  }

  void EndWrite() {
    writing_ = false;
    if (std::exchange(watching_, false)) watch_->End();
  }

  // Behind the request's end the engine watches the client's reading no longer, and the write in
  // flight would last as long as the client likes.
  void WatchReader() {
    const std::optional<absl::Status> end = channel_->end();
    if (!end || watching_) return;
    if (!end->ok() && GetErrorInfo(*end).reason == ErrorReason::kSlowReader) {
      client_lost_ = true;
      call_.TryCancel();  // the write fails, and the rest of the events are taken to the end
      return;
    }
    watching_ = true;
    watch_->Begin();
  }

  // The call was cancelled, its deadline passed or its connection broke: nobody reads any more.
  void LoseClient() {
    client_lost_ = true;
    const bool late = context_.clock.Now() >= deadline_;
    Abort(late ? MakeError(absl::StatusCode::kDeadlineExceeded, "the call's deadline has passed",
                           {.reason = ErrorReason::kDeadlineExceeded, .retryable = true})
               : MakeError(absl::StatusCode::kCancelled, "the client cancelled the call or is gone",
                           {.reason = ErrorReason::kCancelled}));
  }

  // Handles one event; false if there is none.
  bool NextEvent() {
    const std::optional<RequestEvent> event = channel_->PopEvent();
    if (!event) return false;
    if (const auto* end = std::get_if<RequestEnd>(&*event)) {
      Finish(end->status);
    } else if (!client_lost_) {
      message_.Clear();
      ToMessage(*event, &message_);
      writing_ = true;
      this->StartWrite(&message_);
    }
    return true;
  }

  void Finish(const absl::Status& status) {
    finished_ = true;
    watch_->Stop();
    record_.End(status);
    Reactor::Finish(ToGrpcStatus(status));
  }

  std::shared_ptr<RequestStream> self_;  // until OnDone
  std::shared_ptr<RequestChannel> channel_;
  const std::shared_ptr<StallWatch> watch_;
  Serial serial_;

  std::atomic<Mark> write_mark_ = Mark::kNone;
  std::atomic<bool> cancel_mark_ = false;

  // The step's own.
  Response message_;  // that is being written
  bool writing_ = false;
  bool watching_ = false;  // for how long
  bool submitted_ = false;
  bool aborted_ = false;
  bool client_lost_ = false;
  bool finished_ = false;
};

}  // namespace mneme

#endif  // MNEME_SERVER_REQUEST_STREAM_H_
