#include "server/append_stream.h"

#include <atomic>
#include <memory>
#include <utility>
#include <variant>

#include "base/status_macros.h"
#include "server/convert_inference.h"
#include "server/request_stream.h"

namespace mneme {
namespace {

using Reactor = grpc::ServerBidiReactor<v1::AppendRequest, v1::AppendProgress>;

// Reads a message only when the engine wants more input, so that gRPC's flow control reaches back
// to the client.
class AppendStream final : public RequestStream<Reactor, v1::AppendProgress> {
 public:
  static Reactor* Start(const ServiceContext& context, grpc::CallbackServerContext& call) {
    const auto stream = std::shared_ptr<AppendStream>(new AppendStream(context, call));
    stream->RequestStream::Start();
    return stream.get();
  }

  void OnReadDone(bool ok) override {
    read_mark_.store(ok ? Mark::kOk : Mark::kFailed, std::memory_order_release);
    Wake();
  }

 private:
  AppendStream(const ServiceContext& context, grpc::CallbackServerContext& call)
      : RequestStream(context, call, "Append") {}

  void StepInput() override {
    switch (read_mark_.exchange(Mark::kNone, std::memory_order_acquire)) {
      case Mark::kNone:
        break;
      case Mark::kOk:
        reading_ = false;
        if (const absl::Status status = TakeMessage(); !status.ok()) Abort(status);
        break;
      case Mark::kFailed:
        reading_ = false;
        input_ended_ = true;
        TakeEnd();
    }
    if (!reading_ && !input_ended_ && !over() && (!submitted() || channel()->WantsInput())) {
      reading_ = true;
      StartRead(&message_);
    }
  }

  absl::Status TakeMessage() {
    if (over()) return absl::OkStatus();
    return submitted() ? TakeLaterMessage() : TakeFirstMessage();
  }

  absl::Status TakeFirstMessage() {
    record_.session_id = message_.session_id();
    record_.request_id = message_.request_id();
    MNEME_ASSIGN_OR_RETURN(AppendRequest request,
                           ToAppendRequest(message_, record_.tenant(), deadline_));
    MNEME_ASSIGN_OR_RETURN(InputPiece piece, ToInputPiece(message_, context_.codec));
    Submit(std::move(request));
    if (!piece.ids.empty()) Push(std::move(piece));
    return absl::OkStatus();
  }

  absl::Status TakeLaterMessage() {
    MNEME_RETURN_IF_ERROR(CheckLaterMessage(message_, header_));
    MNEME_ASSIGN_OR_RETURN(InputPiece piece, ToInputPiece(message_, context_.codec));
    if (piece.ids.empty()) return EmptyMessage();
    Push(std::move(piece));
    return absl::OkStatus();
  }

  void Submit(AppendRequest request) {
    header_ = request.header;
    SetSubmitted();
    context_.engine.Append(std::move(request), channel());
  }

  void Push(InputPiece piece) {
    record_.tokens_in += static_cast<int64_t>(piece.ids.size());
    channel()->PushInput(std::move(piece));
  }

  // The client has closed its side, or is gone.
  void TakeEnd() {
    if (over()) return;
    if (record_.tokens_in == 0) {
      Abort(RequestError(absl::StatusCode::kInvalidArgument, v1::ERROR_REASON_EMPTY_INPUT, "input",
                         "the stream ended without any input"));
    } else {
      channel()->CloseInput();
    }
  }

  static absl::Status EmptyMessage() {
    return RequestError(absl::StatusCode::kInvalidArgument, v1::ERROR_REASON_EMPTY_INPUT, "input",
                        "every message after the first needs an input");
  }

  void ToMessage(const RequestEvent& event, v1::AppendProgress* message) override {
    ToProto(std::get<AppendProgress>(event), message);
  }

  std::atomic<Mark> read_mark_ = Mark::kNone;

  // The step's own.
  v1::AppendRequest message_;  // that is being read
  RequestHeader header_;       // once submitted
  bool reading_ = false;
  bool input_ended_ = false;
};

}  // namespace

Reactor* StartAppend(const ServiceContext& context, grpc::CallbackServerContext& call) {
  return AppendStream::Start(context, call);
}

}  // namespace mneme
