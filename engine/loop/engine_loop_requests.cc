// EngineLoop's part that requests are: how they come in, and how they are ended together.

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/error.h"
#include "engine/jobs/append_job.h"
#include "engine/jobs/generate_job.h"
#include "engine/loop/engine_loop.h"
#include "engine/scheduling/admission.h"

namespace mneme {

absl::Status EngineLoop::Admit(const RequestHeader& header, int64_t input_tokens) {
  MNEME_RETURN_IF_ERROR(refusal_);
  MNEME_RETURN_IF_ERROR(ValidateTenant(header.session.tenant));
  const absl::Time now = context_.clock.Now();
  QueueState queue = tenants_.StateFor(header.session.tenant);
  queue.requests_per_second = ended_.PerSecond(now);
  queue.tokens_per_second = tokens_in_.PerSecond(now);
  return CheckQueue({context_.options.max_queued_requests, context_.options.max_queued_tokens},
                    queue, input_tokens);
}

absl::Duration EngineLoop::retry_delay() const {
  const auto room = static_cast<double>(context_.options.max_queued_requests) / 8;
  return DrainTime(room, ended_.PerSecond(context_.clock.Now()));
}

absl::StatusOr<Session*> EngineLoop::FindForRequest(const RequestHeader& header,
                                                    int64_t input_tokens, bool logs) {
  MNEME_RETURN_IF_ERROR(Admit(header, input_tokens));
  MNEME_ASSIGN_OR_RETURN(Session * session, sessions_.Find(header.session));
  MNEME_RETURN_IF_ERROR(session->damage());
  if (logs) MNEME_RETURN_IF_ERROR(log_.Health());
  if (queues_.Find(header.session, header.request_id) == nullptr) return session;
  const absl::Status in_flight =
      MakeError(absl::StatusCode::kAborted,
                absl::StrCat("request \"", header.request_id, "\" is in flight; wait for its end"),
                {.reason = ErrorReason::kRequestInFlight, .retryable = true});
  return WithPosition(in_flight, static_cast<uint64_t>(session->position()), session->version());
}

void EngineLoop::Push(std::unique_ptr<Job> job) {
  const absl::Status fits = job->CheckEverFits();
  if (!fits.ok()) return job->End(fits);
  Session& session = job->session();
  if (!session.ready() && !queues_.Has(session)) PushRestore(&session, job->header().priority);
  tenants_.Count(job->header().session.tenant, /*running=*/false, job->pending_tokens());
  queues_.Push(std::move(job));
}

void EngineLoop::Append(AppendRequest request, std::shared_ptr<RequestChannel> channel) {
  const absl::StatusOr<Session*> session = FindForRequest(request.header, 0, /*logs=*/true);
  if (!session.ok()) return channel->PushEvent(RequestEnd{session.status()});
  Push(std::make_unique<AppendJob>(std::move(request), std::move(channel), **session, context_,
                                   ++arrivals_));
}

void EngineLoop::Generate(GenerateRequest request, std::shared_ptr<RequestChannel> channel) {
  if (request.header.session.id.empty()) {
    return GenerateThrowAway(std::move(request), std::move(channel));
  }
  const auto input_tokens = static_cast<int64_t>(request.input.ids.size());
  const absl::StatusOr<Session*> session =
      FindForRequest(request.header, input_tokens, request.learn);
  if (!session.ok()) return channel->PushEvent(RequestEnd{session.status()});
  Push(std::make_unique<GenerateJob>(std::move(request), std::move(channel), **session, context_,
                                     ++arrivals_));
}

void EngineLoop::GenerateThrowAway(GenerateRequest request,
                                   std::shared_ptr<RequestChannel> channel) {
  const absl::Status admitted =
      Admit(request.header, static_cast<int64_t>(request.input.ids.size()));
  if (!admitted.ok()) return channel->PushEvent(RequestEnd{admitted});
  auto session = std::make_unique<Session>(request.header.session, SessionOptions(), *pools_,
                                           context_.clock.Now());
  auto job = std::make_unique<GenerateJob>(std::move(request), std::move(channel), *session,
                                           context_, ++arrivals_);
  tenants_.Count(job->header().session.tenant, /*running=*/false, job->pending_tokens());
  queues_.PushThrowAway(std::move(session), std::move(job));
}

absl::Status EngineLoop::Cancel(const SessionKey& key, const std::string& request_id) {
  MNEME_RETURN_IF_ERROR(failure_);
  Job* job = queues_.Find(key, request_id);
  if (job != nullptr) {
    job->channel().Cancel(MakeError(absl::StatusCode::kCancelled, "cancelled by the client",
                                    {.reason = ErrorReason::kCancelled}));
    return absl::OkStatus();
  }
  return MakeError(
      absl::StatusCode::kNotFound,
      absl::StrCat("no request \"", request_id, "\" is in flight in session \"", key.id, "\""),
      {.reason = ErrorReason::kInvalidInput});
}

void EngineLoop::Refuse(const absl::Status& status) {
  refusal_ = status;
  held_.EndWhere([&status](const HeldCalls::Call&) { return status; });
}

void EngineLoop::EndAll(const absl::Status& status) {
  held_.EndWhere([&status](const HeldCalls::Call&) { return status; });
  queues_.EndWhere([&status](const Job&) { return status; });
  CountRequests();
}

}  // namespace mneme
