#include "loadtest/streams.h"

#include <grpcpp/support/client_callback.h>

#include <utility>

namespace mneme {
namespace {

// What Generate and Append have in common. Owns itself: deleted when the call, and a call Cancel
// that belongs to it, are done. gRPC serialises the reactions of one kind; reads and writes may run
// side by side, so each field of the result belongs to one of the two.
template <typename Reactor, typename Event>
class PlannedStream : public Reactor {
 public:
  explicit PlannedStream(StreamOptions options) : options_(std::move(options)) {}

  void OnDone(const grpc::Status& status) final {
    result_.status = status;
    if (result_.end_us == 0) result_.end_us = options_.loop.now_us();
    options_.loop.Post([done = std::move(options_.done), result = std::move(result_)]() mutable {
      done(std::move(result));
    });
    delete this;
  }

 protected:
  // The call exists, and its first write is under way if there is one.
  void Begin() {
    const bool give_up = GivesUpAfter(0);
    this->AddHold();  // the call could be done, and this gone, before the last line
    this->StartRead(&event_);
    this->StartCall();
    if (give_up) GiveUp();
    this->RemoveHold();
  }

  void ReadOn() {
    if (!options_.plan.slow_reader) return this->StartRead(&event_);
    this->AddHold();
    options_.loop.At(options_.loop.now_us() + options_.pause_us, [this] {
      this->StartRead(&event_);
      this->RemoveHold();
    });
  }

  // Whether the plan ends here; says so in the result.
  bool GivesUpAfter(size_t steps) {
    const bool give_up = options_.plan.cancel_after == static_cast<int64_t>(steps);
    result_.cancelled |= give_up;
    return give_up;
  }

  void GiveUp() {
    if (!options_.plan.cancel_by_call) return options_.context->TryCancel();
    this->AddHold();
    cancel_request_.set_session_id(options_.session_id);
    cancel_request_.set_request_id(options_.request_id);
    options_.connection.inference->async()->Cancel(&cancel_context_, &cancel_request_,
                                                   &cancel_response_, [this](grpc::Status status) {
                                                     result_.cancel_call = std::move(status);
                                                     this->RemoveHold();
                                                   });
  }

  StreamOptions options_;
  StreamResult result_;
  Event event_;

 private:
  grpc::ClientContext cancel_context_;
  v1::CancelRequest cancel_request_;
  v1::CancelResponse cancel_response_;
};

class GenerateStream final
    : public PlannedStream<grpc::ClientReadReactor<v1::GenerateEvent>, v1::GenerateEvent> {
 public:
  GenerateStream(StreamOptions options, v1::GenerateRequest request)
      : PlannedStream(std::move(options)), request_(std::move(request)) {}

  void Start() {
    options_.connection.inference->async()->Generate(options_.context.get(), &request_, this);
    Begin();
  }

  void OnReadDone(bool ok) override {
    const int64_t now_us = options_.loop.now_us();
    if (!ok) {
      result_.end_us = now_us;
      return;
    }
    if (event_.has_finished()) {
      result_.position = event_.finished().position();
      result_.finished = event_.finished();
    } else {
      result_.event_us.push_back(now_us);
      result_.ids.push_back(event_.token().id());
      if (GivesUpAfter(result_.ids.size())) GiveUp();
    }
    ReadOn();
  }

 private:
  v1::GenerateRequest request_;
};

class AppendStream final
    : public PlannedStream<grpc::ClientBidiReactor<v1::AppendRequest, v1::AppendProgress>,
                           v1::AppendProgress> {
 public:
  AppendStream(StreamOptions options, std::vector<v1::AppendRequest> pieces)
      : PlannedStream(std::move(options)), pieces_(std::move(pieces)) {}

  void Start() {
    options_.connection.inference->async()->Append(options_.context.get(), this);
    StartWrite(&pieces_[0]);
    Begin();
  }

  void OnReadDone(bool ok) override {
    const int64_t now_us = options_.loop.now_us();
    if (!ok) {
      result_.end_us = now_us;
      return;
    }
    result_.event_us.push_back(now_us);
    result_.position = event_.position();
    ReadOn();
  }

  void OnWriteDone(bool ok) override {
    if (!ok) return;
    if (GivesUpAfter(++written_)) GiveUp();
    if (written_ < pieces_.size()) {
      StartWrite(&pieces_[written_]);
    } else {
      StartWritesDone();
    }
  }

 private:
  std::vector<v1::AppendRequest> pieces_;
  size_t written_ = 0;
};

}  // namespace

// The streams own themselves.
void StartGenerate(StreamOptions options, v1::GenerateRequest request) {
  (new GenerateStream(std::move(options), std::move(request)))->Start();
}

void StartAppend(StreamOptions options, std::vector<v1::AppendRequest> pieces) {
  (new AppendStream(std::move(options), std::move(pieces)))->Start();
}

}  // namespace mneme
