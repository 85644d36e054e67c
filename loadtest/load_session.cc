#include "loadtest/load_session.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "loadtest/requests.h"
#include "loadtest/rpc_status.h"

namespace mneme {

LoadSession::LoadSession(LoadContext& context, const Arrival& arrival, std::string id,
                         std::function<void()> done)
    : context_(context), arrival_(arrival), id_(std::move(id)), done_(std::move(done)) {}

void LoadSession::Start(int64_t scheduled_us) {
  scheduled_us_ = scheduled_us;
  retries_left_ = context_.options.retries;
  Create();
}

void LoadSession::Interrupt() {
  if (ending_) return;
  if (waiting_) return Delete();
  if (call_) call_->TryCancel();  // else the session is being created
}

// Without a deadline, and never cancelled: it is known afterwards whether there is a session.
void LoadSession::Create() {
  unary_ = std::make_unique<grpc::ClientContext>();
  ++context_.report.calls["CreateSession"].started;
  create_request_.set_session_id(id_);
  context_.connection.sessions->async()->CreateSession(
      unary_.get(), &create_request_, &create_response_, [this](grpc::Status status) {
        context_.loop.Post([this, status = std::move(status)] { OnCreated(status); });
      });
}

void LoadSession::OnCreated(const grpc::Status& status) {
  Count("CreateSession", status, status.ok() || status.error_code() == grpc::RESOURCE_EXHAUSTED);
  if (Retry(status, &LoadSession::Create)) return;
  if (!status.ok()) {
    ending_ = true;
    return done_();
  }
  if (context_.interrupted) return Delete();
  retries_left_ = context_.options.retries;
  Send();
}

// The next request begins a while after now.
void LoadSession::Think() {
  retries_left_ = context_.options.retries;
  scheduled_us_ = context_.loop.now_us() + arrival_.requests[next_].think_us;
  waiting_ = true;
  context_.loop.At(scheduled_us_, [this] {
    waiting_ = false;
    if (!ending_) Send();
  });
}

void LoadSession::Send() {
  NewContext();
  ++context_.report.calls[CallName()].started;
  StreamOptions options = {
      .connection = context_.connection,
      .loop = context_.loop,
      .plan = arrival_.requests[next_],
      .pause_us = static_cast<int64_t>(context_.options.pause_s * 1e6),
      .session_id = id_,
      .request_id = RequestId(id_, next_),
      .context = call_,
      .done = [this](StreamResult result) { OnEnd(std::move(result)); },
  };
  if (arrival_.is_document) {
    StartAppend(std::move(options),
                MakeAppend(context_.options, arrival_, context_.vocab_size, id_));
  } else {
    StartGenerate(std::move(options),
                  MakeGenerate(context_.options, arrival_, next_, context_.vocab_size, id_));
  }
}

void LoadSession::OnEnd(StreamResult result) {
  const bool expected = IsExpected(result);
  Count(CallName(), result.status, expected);
  if (result.cancel_call) {
    ++context_.report.calls["Cancel"].started;
    // NOT_FOUND: the stream has just ended, or not yet begun.
    Count("Cancel", *result.cancel_call,
          result.cancel_call->ok() || result.cancel_call->error_code() == grpc::NOT_FOUND);
  }
  if (result.event_us.empty() && Retry(result.status, &LoadSession::Send)) return;
  Measure(result);
  if (arrival_.checked) results_.push_back(std::move(result));
  ++next_;
  if (!expected || context_.interrupted || next_ == arrival_.requests.size()) return Delete();
  Think();
}

void LoadSession::Delete() {
  ending_ = true;
  if (context_.options.keep) return done_();
  unary_ = std::make_unique<grpc::ClientContext>();
  ++context_.report.calls["DeleteSession"].started;
  delete_request_.set_session_id(id_);
  context_.connection.sessions->async()->DeleteSession(
      unary_.get(), &delete_request_, &delete_response_, [this](grpc::Status status) {
        context_.loop.Post([this, status = std::move(status)] {
          Count("DeleteSession", status, status.ok() || context_.interrupted);
          done_();
        });
      });
}

void LoadSession::Count(const std::string& call, const grpc::Status& status, bool expected) {
  ++context_.report.calls[call].ended[CodeName(status)];
  if (expected) return;
  const std::string what = status.ok() ? "ended without Finished" : status.error_message();
  ++context_.report.unexpected[absl::StrCat(call, " ", CodeName(status), ": ", what)];
}

void LoadSession::Measure(const StreamResult& result) {
  LoadReport& report = context_.report;
  const bool slow = arrival_.requests[next_].slow_reader;
  const bool document = arrival_.is_document;
  if (!result.event_us.empty()) {
    (document ? report.first_progress : report.first_token)
        .Add(result.event_us.front() - scheduled_us_);
  }
  for (size_t i = 1; i < result.event_us.size() && !document && !slow; ++i) {
    report.between_tokens.Add(result.event_us[i] - result.event_us[i - 1]);
  }
  if (result.status.ok() && !slow) {
    (document ? report.append : report.generate).Add(result.end_us - scheduled_us_);
  }
  report.tokens_out += static_cast<int64_t>(result.ids.size());
  if (document) report.tokens_in += static_cast<int64_t>(result.position);
  if (result.finished) {
    report.tokens_in += static_cast<int64_t>(result.finished->usage().prompt_tokens());
  }
}

bool LoadSession::IsExpected(const StreamResult& result) const {
  switch (result.status.error_code()) {
    case grpc::OK:
      return arrival_.is_document || result.finished.has_value();
    case grpc::RESOURCE_EXHAUSTED:
      return true;
    case grpc::CANCELLED:
      return result.cancelled || context_.interrupted;
    case grpc::DEADLINE_EXCEEDED:
      return context_.options.deadline_s > 0;
    default:
      return false;
  }
}

bool LoadSession::Retry(const grpc::Status& status, void (LoadSession::*again)()) {
  if (status.error_code() != grpc::RESOURCE_EXHAUSTED || context_.interrupted) return false;
  if (retries_left_ == 0) return false;
  --retries_left_;
  ++context_.report.retries;
  waiting_ = true;
  context_.loop.At(context_.loop.now_us() + RetryDelayUs(status), [this, again] {
    waiting_ = false;
    if (!ending_) (this->*again)();
  });
  return true;
}

void LoadSession::NewContext() {
  call_ = std::make_shared<grpc::ClientContext>();
  if (context_.options.deadline_s == 0) return;
  const auto allowed_us = static_cast<int64_t>(context_.options.deadline_s * 1e6);
  const int64_t left_us = scheduled_us_ + allowed_us - context_.loop.now_us();
  call_->set_deadline(std::chrono::system_clock::now() + std::chrono::microseconds(left_us));
}

}  // namespace mneme
