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

EngineLoop::EngineLoop(std::unique_ptr<CachePools> pools, std::unique_ptr<Model> model,
                       JobContext context)
    : pools_(std::move(pools)),
      model_(std::move(model)),
      context_(std::move(context)),
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
  const auto queue = std::find_if(queues_.begin(), queues_.end(),
                                  [session](const Queue& q) { return q.session == session; });
  if (queue != queues_.end()) {
    while (!queue->jobs.empty()) EndJob(*queue, 0, status);
    queues_.erase(queue);
  }
  const SessionKey key = session->key();
  sessions_.Erase(key);
}

// --- Requests. ---

absl::Status EngineLoop::Admit(const RequestHeader& header) const {
  MNEME_RETURN_IF_ERROR(refusal_);
  if (requests_ < context_.options.max_queued_requests) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kResourceExhausted,
      absl::StrCat("request ", header.request_id, ": the queue is full with ", requests_,
                   " requests; try again later"),
      {.reason = ErrorReason::kQueueFull, .retryable = true, .retry_delay = absl::Seconds(1)});
}

EngineLoop::Queue& EngineLoop::QueueOf(Session& session) {
  for (Queue& queue : queues_) {
    if (queue.session == &session) return queue;
  }
  queues_.push_back({.session = &session});
  return queues_.back();
}

template <typename JobType, typename Request>
void EngineLoop::Enqueue(Queue& queue, Request request, std::shared_ptr<RequestChannel> channel) {
  const std::string& id = request.header.request_id;
  for (const auto& job : queue.jobs) {
    if (id.empty() || job->header().request_id != id) continue;
    const absl::Status status =
        MakeError(absl::StatusCode::kAborted,
                  absl::StrCat("request \"", id, "\" is in flight; wait for its end"),
                  {.reason = ErrorReason::kRequestInFlight, .retryable = true});
    return channel->PushEvent(RequestEnd{WithPosition(
        status, static_cast<uint64_t>(queue.session->position()), queue.session->version())});
  }
  ++requests_;
  queue.jobs.push_back(std::make_unique<JobType>(std::move(request), std::move(channel),
                                                 *queue.session, context_, ++arrivals_));
}

void EngineLoop::Append(AppendRequest request, std::shared_ptr<RequestChannel> channel) {
  const absl::Status admitted = Admit(request.header);
  if (!admitted.ok()) return channel->PushEvent(RequestEnd{admitted});
  const absl::StatusOr<Session*> session = sessions_.Find(request.header.session);
  if (!session.ok()) return channel->PushEvent(RequestEnd{session.status()});
  Enqueue<AppendJob>(QueueOf(**session), std::move(request), std::move(channel));
}

void EngineLoop::Generate(GenerateRequest request, std::shared_ptr<RequestChannel> channel) {
  const absl::Status admitted = Admit(request.header);
  if (!admitted.ok()) return channel->PushEvent(RequestEnd{admitted});
  if (request.header.session.id.empty()) {
    auto session = std::make_unique<Session>(request.header.session, SessionOptions(), *pools_,
                                             context_.clock.Now());
    queues_.push_back({.session = session.get(), .throw_away = std::move(session)});
    return Enqueue<GenerateJob>(queues_.back(), std::move(request), std::move(channel));
  }
  const absl::StatusOr<Session*> session = sessions_.Find(request.header.session);
  if (!session.ok()) return channel->PushEvent(RequestEnd{session.status()});
  Enqueue<GenerateJob>(QueueOf(**session), std::move(request), std::move(channel));
}

absl::Status EngineLoop::Cancel(const SessionKey& key, const std::string& request_id) {
  MNEME_RETURN_IF_ERROR(failure_);
  for (Queue& queue : queues_) {
    if (!(queue.session->key() == key)) continue;
    for (const auto& job : queue.jobs) {
      if (request_id.empty() || job->header().request_id != request_id) continue;
      job->channel().Cancel(MakeError(absl::StatusCode::kCancelled, "cancelled by the client",
                                      {.reason = ErrorReason::kCancelled}));
      return absl::OkStatus();
    }
  }
  return MakeError(
      absl::StatusCode::kNotFound,
      absl::StrCat("no request \"", request_id, "\" is in flight in session \"", key.id, "\""),
      {.reason = ErrorReason::kInvalidInput});
}

void EngineLoop::EndAll(const absl::Status& status) {
  for (Queue& queue : queues_) {
    while (!queue.jobs.empty()) EndJob(queue, 0, status);
  }
  queues_.clear();
}

void EngineLoop::EndJob(Queue& queue, size_t index, const absl::Status& status) {
  queue.jobs[index]->End(status);
  queue.jobs.erase(queue.jobs.begin() + static_cast<std::ptrdiff_t>(index));
  --requests_;
}

// --- Steps. ---

bool EngineLoop::RunOnce() {
  if (!failure_.ok()) return false;
  const int64_t before = requests_;
  bool progress = Sweep();
  const std::vector<Ready> ready = CollectReady();
  if (ready.empty()) RelieveMemory();
  if (!ready.empty()) RunStep(ready);
  Retire();
  return progress || !ready.empty() || requests_ != before;
}

bool EngineLoop::Sweep() {
  const absl::Time now = context_.clock.Now();
  const int64_t before = requests_;
  for (Queue& queue : queues_) {
    for (size_t i = queue.jobs.size(); i-- > 0;) {
      const absl::Status status = queue.jobs[i]->Interruption(now);
      if (!status.ok()) EndJob(queue, i, status);
    }
  }
  queues_.remove_if([](const Queue& queue) { return queue.jobs.empty(); });
  const bool expired = now >= next_expiry_ && DeleteExpired(now);
  return expired || requests_ != before;
}

bool EngineLoop::DeleteExpired(absl::Time now) {
  bool deleted = false;
  for (Session* session : sessions_.Expired(now)) {
    const bool busy = std::any_of(queues_.begin(), queues_.end(),
                                  [session](const Queue& q) { return q.session == session; });
    if (busy) {
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
  for (Queue& queue : queues_) {
    Job& job = *queue.jobs.front();
    const absl::StatusOr<std::optional<Candidate>> candidate = job.Next();
    if (!candidate.ok()) {
      EndJob(queue, 0, candidate.status());
      continue;
    }
    if (!candidate->has_value()) continue;
    const int64_t rows = std::min((*candidate)->rows_wanted, context_.options.max_step_tokens);
    const absl::StatusOr<bool> reserved = job.Reserve(rows);
    if (!reserved.ok()) {
      EndJob(queue, 0, reserved.status());
    } else if (*reserved) {
      ready.push_back({&job, **candidate});
    } else {
      starved_.push_back(&job);
    }
  }
  return ready;
}

void EngineLoop::RelieveMemory() {
  if (starved_.empty()) return;
  for (const Queue& queue : queues_) {
    // A paused generation goes on when its reader does, and gives its memory back in the end.
    if (!queue.jobs.empty() && queue.jobs.front()->holds_lease()) return;
  }
  const Job* first =
      *std::min_element(starved_.begin(), starved_.end(),
                        [](const Job* a, const Job* b) { return a->arrival() < b->arrival(); });
  for (Queue& queue : queues_) {
    if (queue.jobs.empty() || queue.jobs.front().get() != first) continue;
    return EndJob(queue, 0,
                  MakeError(absl::StatusCode::kResourceExhausted,
                            "idle sessions hold the session memory; delete some, or raise "
                            "--cache_bytes",
                            {.reason = ErrorReason::kOutOfMemory,
                             .retryable = true,
                             .retry_delay = absl::Seconds(5)}));
  }
}

void EngineLoop::RunStep(const std::vector<Ready>& ready) {
  std::vector<Candidate> candidates;
  for (const Ready& entry : ready) candidates.push_back(entry.candidate);
  const std::vector<PlannedRows> plan = PlanStep(candidates, context_.options.max_step_tokens);
  ++steps_;
  std::vector<SequenceStep> steps;
  for (const PlannedRows& planned : plan) {
    steps.push_back(ready[planned.candidate].job->MakeStep(planned.rows, steps_));
  }
  const absl::Time begin = context_.clock.Now();
  const absl::StatusOr<ModelStepStats> stats = model_->Run(absl::MakeSpan(steps));
  if (!stats.ok()) return Fail(stats.status());
  context_.stats.OnStep(stats->rows, context_.clock.Now() - begin);
  if (stats->chunks_closed > 0) {
    context_.stats.OnChunkUpdates(stats->chunks_closed, stats->update_time);
  }
  std::vector<std::pair<Job*, absl::Status>> failed;
  for (size_t i = 0; i < plan.size(); ++i) {
    Job* job = ready[plan[i].candidate].job;
    const absl::Status status = job->Commit(steps[i]);
    if (!status.ok()) failed.emplace_back(job, status);
  }
  for (const auto& [job, status] : failed) {
    for (Queue& queue : queues_) {
      if (!queue.jobs.empty() && queue.jobs.front().get() == job) EndJob(queue, 0, status);
    }
  }
}

void EngineLoop::Retire() {
  for (Queue& queue : queues_) {
    if (!queue.jobs.empty() && queue.jobs.front()->done()) EndJob(queue, 0, absl::OkStatus());
  }
  queues_.remove_if([](const Queue& queue) { return queue.jobs.empty(); });
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
  absl::Time wake = next_expiry_;
  for (const Queue& queue : queues_) {
    for (const auto& job : queue.jobs) wake = std::min(wake, job->header().deadline);
  }
  return wake;
}

EngineLoad EngineLoop::load() const {
  EngineLoad load = {.sessions = sessions_.size(),
                     .device_bytes_used = pools_->held_bytes(),
                     .device_bytes_reserved = pools_->budget().reserved_bytes(),
                     .device_bytes_limit = pools_->budget().limit_bytes(),
                     .host_bytes = sessions_.host_bytes()};
  for (const Queue& queue : queues_) {
    load.running_requests += 1;
    load.waiting_requests += static_cast<int64_t>(queue.jobs.size()) - 1;
    for (const auto& job : queue.jobs) load.pending_tokens += job->pending_tokens();
  }
  return load;
}

}  // namespace mneme
