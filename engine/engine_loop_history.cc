// EngineLoop's part that sessions' histories are: forks, rollbacks and checkpoints.

#include <unordered_set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/engine_loop.h"
#include "engine/error.h"
#include "engine/restore_job.h"

namespace mneme {
namespace {

absl::Status TryAgain(absl::StatusCode code, ErrorReason reason, const std::string& message) {
  return MakeError(code, message,
                   {.reason = reason, .retryable = true, .retry_delay = absl::Milliseconds(100)});
}

}  // namespace

absl::StatusOr<Session*> EngineLoop::FindAt(const SessionKey& key,
                                            std::optional<int64_t> position) {
  MNEME_RETURN_IF_ERROR(refusal_);
  MNEME_RETURN_IF_ERROR(log_.Health());
  MNEME_ASSIGN_OR_RETURN(Session * session, sessions_.Find(key));
  MNEME_RETURN_IF_ERROR(session->damage());
  if (position.value_or(0) < 0 || position.value_or(0) > session->position()) {
    return MakeError(absl::StatusCode::kOutOfRange,
                     absl::StrCat("position ", *position, " is not in the session, which ends at ",
                                  session->position()),
                     {.reason = ErrorReason::kInvalidInput});
  }
  if (session->loaded()) return session;
  return BeingBroughtBack(session);
}

absl::Status EngineLoop::BeingBroughtBack(Session* session) {
  if (!queues_.Has(*session)) PushRestore(session);
  return TryAgain(absl::StatusCode::kUnavailable, ErrorReason::kUnspecified,
                  "the session lies on the disk and is being read; try again");
}

void EngineLoop::PushRestore(Session* session) {
  queues_.Push(std::make_unique<RestoreJob>(*session, Priority::kNormal, context_, ++arrivals_));
}

void EngineLoop::CheckpointSession(const SessionKey& key, Checkpointer::Done done) {
  const absl::StatusOr<Session*> found = FindAt(key, std::nullopt);
  if (!found.ok()) return done(found.status());
  Session* const session = *found;
  if (!log_.Keeps(*session)) {
    return done(MakeError(absl::StatusCode::kFailedPrecondition,
                          "sessions live in memory here; checkpoints need --data_dir",
                          {.reason = ErrorReason::kUnspecified}));
  }
  if (!session->ready()) return done(BeingBroughtBack(session));
  checkpointer_->Ask(*session, std::move(done));
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
  if (queues_.Has(*session)) {
    return TryAgain(absl::StatusCode::kAborted, ErrorReason::kRequestInFlight,
                    "a request of the session is in flight; wait for its end, or cancel it");
  }
  if (!session->ComputedWithin(to_position)) {
    if (!tiers_->DropImage(*session)) {
      return TryAgain(absl::StatusCode::kUnavailable, ErrorReason::kUnspecified,
                      "the session's state is being moved; try again");
    }
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
