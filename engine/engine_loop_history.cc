// EngineLoop's part that sessions' histories are: forks, rollbacks and checkpoints, and how these
// calls wait for their session.

#include <unordered_set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "engine/engine_loop.h"
#include "engine/error.h"
#include "engine/restore_job.h"

namespace mneme {

// --- Sessions that come back for them. ---

absl::StatusOr<Session*> EngineLoop::FindForCall(const SessionKey& key) const {
  MNEME_RETURN_IF_ERROR(refusal_);
  MNEME_RETURN_IF_ERROR(log_.Health());
  MNEME_ASSIGN_OR_RETURN(Session * session, sessions_.Find(key));
  MNEME_RETURN_IF_ERROR(session->damage());
  return session;
}

absl::StatusOr<Session*> EngineLoop::FindAt(const SessionKey& key,
                                            std::optional<int64_t> position) const {
  MNEME_ASSIGN_OR_RETURN(Session * session, FindForCall(key));
  if (position.value_or(0) < 0 || position.value_or(0) > session->position()) {
    return MakeError(absl::StatusCode::kOutOfRange,
                     absl::StrCat("position ", *position, " is not in the session, which ends at ",
                                  session->position()),
                     {.reason = ErrorReason::kInvalidInput});
  }
  MNEME_CHECK(session->loaded());
  return session;
}

void EngineLoop::WhenBack(const SessionKey& key, HeldCalls::Until until, HeldCalls::GaveUp gave_up,
                          const HeldCalls::Then& then) {
  const absl::StatusOr<Session*> session = FindForCall(key);
  if (!session.ok()) return then(session.status());
  HeldCalls::Call call = {*session, until, std::move(gave_up), then};
  if (IsBack(call)) return then(absl::OkStatus());
  GoOnBringing(call);
  held_.Hold(std::move(call));
}

bool EngineLoop::GoOnBringing(const HeldCalls::Call& call) {
  const bool moves = call.until == HeldCalls::Until::kAtRest && call.session->loaded();
  if (moves || queues_.Has(*call.session)) return false;
  PushRestore(call.session, Priority::kNormal);
  return true;
}

bool EngineLoop::IsBack(const HeldCalls::Call& call) {
  Session& session = *call.session;
  if (!session.loaded() || call.until == HeldCalls::Until::kLog) return session.loaded();
  if (call.until == HeldCalls::Until::kState) return session.ready();
  return tiers_->Bring(session, /*may_reserve=*/false) != SessionTiers::Presence::kComing;
}

bool EngineLoop::AnswerHeld() {
  bool worked = false;
  held_.EndWhere([&](const HeldCalls::Call& call) {
    const absl::Status gave_up = call.gave_up ? call.gave_up() : absl::OkStatus();
    if (gave_up.ok() && !IsBack(call)) return std::optional<absl::Status>();
    worked = true;
    return std::optional<absl::Status>(gave_up);
  });
  for (const HeldCalls::Call& call : held_.calls()) worked |= GoOnBringing(call);
  return worked;
}

void EngineLoop::PushRestore(Session* session, Priority priority) {
  queues_.Push(std::make_unique<RestoreJob>(*session, priority, context_, ++arrivals_));
}

bool EngineLoop::HasRequests(const Session& session) const {
  bool found = false;
  queues_.ForEach(
      [&](const Job& job, bool) { found |= &job.session() == &session && !job.restores(); });
  return found;
}

// --- Checkpoints. ---

void EngineLoop::CheckpointSession(const SessionKey& key, const Checkpointer::Done& done,
                                   HeldCalls::GaveUp gave_up) {
  const absl::StatusOr<Session*> found = FindForCall(key);
  if (found.ok() && !log_.Keeps(**found)) {
    return done(MakeError(absl::StatusCode::kFailedPrecondition,
                          "sessions live in memory here; checkpoints need --data_dir",
                          {.reason = ErrorReason::kUnspecified}));
  }
  WhenBack(key, HeldCalls::Until::kState, std::move(gave_up),
           [this, key, done](const absl::Status& status) {
             if (!status.ok()) return done(status);
             const absl::StatusOr<Session*> session = FindForCall(key);
             session.ok() ? checkpointer_->Ask(**session, done) : done(session.status());
           });
}

void EngineLoop::BeginCheckpoint() {
  if (!checkpointer_->wants_one()) return;
  // Requests that leave no trace keep pages behind what is computed.
  std::unordered_set<const Session*> taken;
  for (const Job* job : queues_.Heads()) {
    if (!job->logs()) taken.insert(&job->session());
  }
  Session* const session = checkpointer_->Begin([&](const Session& candidate) {
    if (!candidate.ready()) return false;
    return tiers_->IsHere(candidate) ? !taken.contains(&candidate)
                                     : tiers_->ParkedImage(candidate) != nullptr;
  });
  if (session != nullptr) updates_.Forget(*session);
}

// --- Forks and rollbacks. ---

absl::StatusOr<SessionInfo> EngineLoop::ForkSession(const SessionKey& key,
                                                    const std::string& new_id,
                                                    std::optional<int64_t> at_position) {
  MNEME_ASSIGN_OR_RETURN(Session * parent, FindAt(key, at_position));
  const int64_t position = at_position.value_or(parent->position());
  SessionLogs logs = parent->LogsAt(position);
  SessionOptions options = {
      .controls = logs.controls.latest(), .labels = parent->labels(), .ttl = parent->ttl()};
  MNEME_ASSIGN_OR_RETURN(Session * child, sessions_.Create({key.tenant, new_id}, std::move(options),
                                                           context_.clock.Now()));
  // Otherwise, and where memory is short, it is computed from its log when it is used.
  if (parent->ComputedWithin(position) && tiers_->IsHere(*parent) &&
      child->state().ShareWith(parent->state())) {
    child->cache().TruncatePages(child->computed());  // a probe's rows are the parent's
    child->cache().ReleaseUnused();
  }
  const std::vector<UpdatePoint> updates = logs.updates;
  child->Load(std::move(logs));
  if (child->ready()) updates_.Note(*child);
  next_expiry_ = std::min(next_expiry_, child->expiry());
  log_.Create(*child, updates, parent);
  return InfoOf(*child);
}

absl::StatusOr<SessionInfo> EngineLoop::RollbackSession(const SessionKey& key,
                                                        int64_t to_position) {
  MNEME_ASSIGN_OR_RETURN(Session * session, FindAt(key, to_position));
  if (HasRequests(*session)) {
    return MakeError(absl::StatusCode::kAborted,
                     "a request of the session is in flight; wait for its end, or cancel it",
                     {.reason = ErrorReason::kRequestInFlight,
                      .retryable = true,
                      .retry_delay = absl::Milliseconds(100)});
  }
  // What brings it back would bring what is forgotten.
  queues_.EndWhere([session](const Job& job) {
    return &job.session() == session ? std::optional<absl::Status>(absl::OkStatus()) : std::nullopt;
  });
  if (!session->ComputedWithin(to_position)) {
    MNEME_CHECK(tiers_->DropImage(*session));
    updates_.Forget(*session);
  }
  disk_.Forget(*session);
  checkpointer_->Forget(*session);
  log_.Commit();  // what it logged before
  SessionLogs logs = session->LogsAt(to_position);
  const size_t updates = logs.updates.size();
  session->RollBack(std::move(logs));
  session->Touch(context_.clock.Now());
  log_.RollBack(*session, updates);
  return InfoOf(*session);
}

}  // namespace mneme
