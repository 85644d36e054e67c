#include "engine/engine_loop.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/append_job.h"
#include "engine/error.h"
#include "engine/generate_job.h"
#include "engine/scheduler.h"

namespace mneme {

static_assert(kMaxStepSequences <= Model::kLogitRows, "every one of them may draw");

EngineLoop::EngineLoop(std::unique_ptr<CachePools> pools, std::unique_ptr<Model> model,
                       const JobContext& context)
    : pools_(std::move(pools)),
      model_(std::move(model)),
      context_(context),
      sessions_(*pools_, context_.options.max_sessions) {}

EngineLoop::~EngineLoop() {
  EndAll(MakeError(absl::StatusCode::kUnavailable, "the server is shutting down",
                   {.reason = ErrorReason::kDraining, .retryable = true}));
}

// --- Sessions. ---

absl::StatusOr<SessionInfo> EngineLoop::CreateSession(SessionKey key, SessionOptions options) {
  MNEME_RETURN_IF_ERROR(refusal_);
  MNEME_ASSIGN_OR_RETURN(Session * session, sessions_.Create(std::move(key), std::move(options),
                                                             context_.clock.Now()));
  next_expiry_ = std::min(next_expiry_, session->expiry());
  return session->info();
}

absl::StatusOr<SessionInfo> EngineLoop::GetSession(const SessionKey& key) const {
  MNEME_RETURN_IF_ERROR(failure_);
  MNEME_ASSIGN_OR_RETURN(const Session* session, sessions_.Find(key));
  return session->info();
}

Engine::SessionPage EngineLoop::ListSessions(const std::string& tenant, const std::string& after,
                                             int limit) const {
  const std::vector<Session*> sessions = sessions_.List(tenant, after, limit + 1);
  Engine::SessionPage page;
  for (const Session* session : sessions) {
    if (static_cast<int>(page.sessions.size()) == limit) {
      page.next_after = page.sessions.back().key.id;
      break;
    }
    page.sessions.push_back(session->info());
  }
  return page;
}

absl::StatusOr<SessionInfo> EngineLoop::UpdateSession(const SessionKey& key,
                                                      const SessionUpdate& update) {
  MNEME_RETURN_IF_ERROR(refusal_);
  MNEME_RETURN_IF_ERROR(ValidateControls(update.controls.AppliedTo(LearningControls())));
  MNEME_ASSIGN_OR_RETURN(Session * session, sessions_.Find(key));
  session->Update(update);
  session->Touch(context_.clock.Now());
  next_expiry_ = std::min(next_expiry_, session->expiry());
  return session->info();
}

absl::StatusOr<SessionInfo> EngineLoop::DeleteSession(const SessionKey& key) {
  MNEME_RETURN_IF_ERROR(refusal_);
  MNEME_ASSIGN_OR_RETURN(Session * session, sessions_.Find(key));
  SessionInfo info = session->info();
  EndSession(session, MakeError(absl::StatusCode::kAborted, "the session was deleted",
                                {.reason = ErrorReason::kSessionDeleted}));
  return info;
}

void EngineLoop::EndSession(Session* session, const absl::Status& status) {
  queues_.EndWhere([&](const Job& job) {
    return &job.session() == session ? std::optional<absl::Status>(status) : std::nullopt;
  });
  updates_.Forget(*session);
  const SessionKey key = session->key();
  sessions_.Erase(key);
}

// --- Requests. ---

absl::Status EngineLoop::Admit(const RequestHeader& header) const {
  MNEME_RETURN_IF_ERROR(refusal_);
  if (queues_.size() < context_.options.max_queued_requests) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kResourceExhausted,
      absl::StrCat("request ", header.request_id, ": the queue is full with ", queues_.size(),
                   " requests; try again later"),
      {.reason = ErrorReason::kQueueFull, .retryable = true, .retry_delay = absl::Seconds(1)});
}

absl::StatusOr<Session*> EngineLoop::FindForRequest(const RequestHeader& header) const {
  MNEME_RETURN_IF_ERROR(Admit(header));
  MNEME_ASSIGN_OR_RETURN(Session * session, sessions_.Find(header.session));
  if (queues_.Find(header.session, header.request_id) == nullptr) return session;
  const absl::Status in_flight =
      MakeError(absl::StatusCode::kAborted,
                absl::StrCat("request \"", header.request_id, "\" is in flight; wait for its end"),
                {.reason = ErrorReason::kRequestInFlight, .retryable = true});
  return WithPosition(in_flight, static_cast<uint64_t>(session->position()), session->version());
}

void EngineLoop::Append(AppendRequest request, std::shared_ptr<RequestChannel> channel) {
  const absl::StatusOr<Session*> session = FindForRequest(request.header);
  if (!session.ok()) return channel->PushEvent(RequestEnd{session.status()});
  queues_.Push(std::make_unique<AppendJob>(std::move(request), std::move(channel), **session,
                                           context_, ++arrivals_));
}

void EngineLoop::Generate(GenerateRequest request, std::shared_ptr<RequestChannel> channel) {
  if (request.header.session.id.empty()) {
    return GenerateThrowAway(std::move(request), std::move(channel));
  }
  const absl::StatusOr<Session*> session = FindForRequest(request.header);
  if (!session.ok()) return channel->PushEvent(RequestEnd{session.status()});
  queues_.Push(std::make_unique<GenerateJob>(std::move(request), std::move(channel), **session,
                                             context_, ++arrivals_));
}

void EngineLoop::GenerateThrowAway(GenerateRequest request,
                                   std::shared_ptr<RequestChannel> channel) {
  const absl::Status admitted = Admit(request.header);
  if (!admitted.ok()) return channel->PushEvent(RequestEnd{admitted});
  auto session = std::make_unique<Session>(request.header.session, SessionOptions(), *pools_,
                                           context_.clock.Now());
  auto job = std::make_unique<GenerateJob>(std::move(request), std::move(channel), *session,
                                           context_, ++arrivals_);
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

void EngineLoop::EndAll(const absl::Status& status) {
  queues_.EndWhere([&status](const Job&) { return status; });
}

// --- Steps. ---

bool EngineLoop::RunOnce() {
  if (!failure_.ok()) return false;
  const int64_t before = queues_.size();
  const bool expired = Sweep();
  const std::vector<Ready> ready = CollectReady();
  if (!ready.empty()) RunStep(ready);
  queues_.EndWhere([](const Job& job) {
    return job.done() ? std::optional<absl::Status>(absl::OkStatus()) : std::nullopt;
  });
  if (expired || !ready.empty() || queues_.size() != before) return true;
  if (!updates_.empty()) {
    RunIdleUpdates();
    return true;
  }
  RelieveMemory();
  return queues_.size() != before;
}

bool EngineLoop::Sweep() {
  const absl::Time now = context_.clock.Now();
  queues_.EndWhere([now](const Job& job) {
    const absl::Status status = job.Interruption(now);
    return status.ok() ? std::nullopt : std::optional<absl::Status>(status);
  });
  return now >= next_expiry_ && DeleteExpired(now);
}

bool EngineLoop::DeleteExpired(absl::Time now) {
  bool deleted = false;
  for (Session* session : sessions_.Expired(now)) {
    if (queues_.Has(*session)) {
      session->Touch(now);  // waiting is using
    } else {
      EndSession(session, absl::OkStatus());
      deleted = true;
    }
  }
  next_expiry_ = sessions_.NextExpiry();
  return deleted;
}

std::vector<EngineLoop::Ready> EngineLoop::CollectReady() {
  std::vector<Ready> ready;
  starved_.clear();
  for (Job* job : queues_.Heads()) {
    const absl::StatusOr<std::optional<Candidate>> candidate = job->Next();
    if (!candidate.ok()) {
      queues_.End(job, candidate.status());
      continue;
    }
    if (!candidate->has_value()) continue;
    const int64_t rows = std::min((*candidate)->rows_wanted, context_.options.max_step_tokens);
    const absl::StatusOr<bool> reserved = job->Reserve(rows);
    if (!reserved.ok()) {
      queues_.End(job, reserved.status());
    } else if (*reserved) {
      ready.push_back({job, **candidate});
    } else {
      starved_.push_back(job);
    }
  }
  return ready;
}

void EngineLoop::RelieveMemory() {
  if (starved_.empty()) return;
  for (const Job* job : queues_.Heads()) {
    // A paused generation goes on when its reader does, and gives its memory back in the end.
    if (job->holds_lease()) return;
  }
  const Job* first =
      *std::min_element(starved_.begin(), starved_.end(),
                        [](const Job* a, const Job* b) { return a->arrival() < b->arrival(); });
  queues_.End(first, MakeError(absl::StatusCode::kResourceExhausted,
                               "idle sessions hold the session memory; delete some, or raise "
                               "--cache_bytes",
                               {.reason = ErrorReason::kOutOfMemory,
                                .retryable = true,
                                .retry_delay = absl::Seconds(5)}));
}

void EngineLoop::RunStep(const std::vector<Ready>& ready) {
  std::vector<Candidate> candidates;
  for (const Ready& entry : ready) candidates.push_back(entry.candidate);
  std::vector<PlannedRows> plan = PlanStep(candidates, context_.options.max_step_tokens);
  std::stable_partition(plan.begin(), plan.end(),
                        [](const PlannedRows& planned) { return planned.rows <= 1; });
  ++steps_;
  std::vector<SequenceStep> steps;
  for (const PlannedRows& planned : plan) {
    steps.push_back(ready[planned.candidate].job->MakeStep(planned.rows, steps_));
  }
  // Others wait for the memory of rows that could be learnt.
  if (!starved_.empty()) AddIdleUpdates(steps);
  if (!RunModel(absl::MakeSpan(steps))) return;
  for (size_t i = 0; i < plan.size(); ++i) {
    Job* job = ready[plan[i].candidate].job;
    const absl::Status status = job->Commit(steps[i]);
    // A throw-away session ends with its request.
    if (!job->session().key().id.empty()) updates_.Note(job->session());
    if (!status.ok()) queues_.End(job, status);
  }
}

void EngineLoop::RunIdleUpdates() {
  std::vector<SequenceStep> steps;
  AddIdleUpdates(steps);
  RunModel(absl::MakeSpan(steps));
}

void EngineLoop::AddIdleUpdates(std::vector<SequenceStep>& steps) {
  // As many chunks as a step has rows for, so that a request that comes meanwhile waits no longer
  // than for others' rows.
  const int64_t chunks = std::max<int64_t>(context_.options.max_step_tokens / pools_->chunk(), 1);
  for (Session* session : updates_.First(chunks)) {
    const bool has_part = std::any_of(steps.begin(), steps.end(), [&](const SequenceStep& step) {
      return step.cache == &session->cache();
    });
    if (has_part) continue;
    session->state().Prepare(steps.emplace_back(), /*updates=*/1);
    updates_.Note(*session);
  }
}

bool EngineLoop::RunModel(absl::Span<SequenceStep> steps) {
  const absl::Time begin = context_.clock.Now();
  const absl::StatusOr<ModelStepStats> stats = model_->Run(*pools_, steps);
  if (!stats.ok()) {
    Fail(stats.status());
    return false;
  }
  context_.stats.OnStep(stats->rows, context_.clock.Now() - begin);
  if (stats->chunks_closed > 0) context_.stats.OnChunksClosed(stats->chunks_closed);
  return true;
}

void EngineLoop::Fail(const absl::Status& status) {
  failure_ = MakeError(absl::StatusCode::kUnavailable,
                       absl::StrCat("the backend has failed: ", std::string(status.message()),
                                    "; the server must be restarted"),
                       {.reason = ErrorReason::kBackendFailed, .retryable = true});
  refusal_ = failure_;
  EndAll(failure_);
}

absl::Time EngineLoop::NextWake() const {
  if (!failure_.ok()) return absl::InfiniteFuture();
  return std::min(next_expiry_, queues_.NextDeadline());
}

EngineLoad EngineLoop::load() const {
  return {.sessions = sessions_.size(),
          .running_requests = queues_.num_queues(),
          .waiting_requests = queues_.size() - queues_.num_queues(),
          .pending_tokens = queues_.pending_tokens(),
          .device_bytes_used = pools_->held_bytes(),
          .device_bytes_reserved = pools_->budget().reserved_bytes(),
          .device_bytes_limit = pools_->budget().limit_bytes(),
          .host_bytes = sessions_.host_bytes()};
}

}  // namespace mneme
