// EngineLoop's part that sessions' histories are: forks, rollbacks and checkpoints, and how these
// calls wait for their session.

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "engine/error.h"
#include "engine/jobs/restore_job.h"
#include "engine/loop/engine_loop.h"

namespace mneme {
namespace {

absl::StatusOr<int64_t> PositionOfCheckpoint(const Session& session, const std::string& name) {
  const auto named = session.checkpoints().find(name);
  if (named != session.checkpoints().end()) return named->second;
  return MakeError(absl::StatusCode::kNotFound,
                   absl::StrCat("session \"", session.key().id, "\" has no checkpoint \"", name,
                                "\"; GetSession lists those it has"),
                   {.reason = ErrorReason::kCheckpointNotFound});
}

// NOT_FOUND, OUT_OF_RANGE.
absl::StatusOr<int64_t> PositionOf(const Session& session, const HistoryPoint& point) {
  if (const auto* name = std::get_if<std::string>(&point)) {
    return PositionOfCheckpoint(session, *name);
  }
  const auto* given = std::get_if<int64_t>(&point);
  const int64_t position = given == nullptr ? session.position() : *given;
  if (position >= 0 && position <= session.position()) return position;
  return MakeError(absl::StatusCode::kOutOfRange,
                   absl::StrCat("position ", position, " is not in the session, which ends at ",
                                session.position()),
                   {.reason = ErrorReason::kInvalidInput});
}

// OK if a checkpoint of the session may be named so; an empty name is none.
absl::Status CheckName(const Session& session, const std::string& name) {
  const auto& named = session.checkpoints();
  if (name.empty()) return absl::OkStatus();
  MNEME_RETURN_IF_ERROR(ValidateCheckpointName(name));
  if (named.size() < kMaxNamedCheckpoints || named.contains(name)) return absl::OkStatus();
  const auto first = std::min_element(
      named.begin(), named.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return MakeError(absl::StatusCode::kResourceExhausted,
                   absl::StrCat("the session has ", named.size(),
                                " named checkpoints, which is the most; take one of their names "
                                "again, perhaps \"",
                                first->first, "\", of position ", first->second),
                   {.reason = ErrorReason::kTooManyCheckpoints});
}

}  // namespace

// --- Sessions that come back for them. ---

absl::StatusOr<Session*> EngineLoop::FindForCall(const SessionKey& key) const {
  MNEME_RETURN_IF_ERROR(refusal_);
  MNEME_RETURN_IF_ERROR(log_.Health());
  MNEME_ASSIGN_OR_RETURN(Session * session, sessions_.Find(key));
  MNEME_RETURN_IF_ERROR(session->damage());
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

void EngineLoop::CheckpointSession(const SessionKey& key, const std::string& name,
                                   const Checkpointer::Done& done, HeldCalls::GaveUp gave_up) {
  const absl::StatusOr<Session*> found = FindForCall(key);
  if (found.ok() && !log_.Keeps(**found)) {
    return done(MakeError(absl::StatusCode::kFailedPrecondition,
                          "sessions live in memory here; checkpoints need --data_dir",
                          {.reason = ErrorReason::kUnspecified}));
  }
  if (const absl::Status status = found.ok() ? CheckName(**found, name) : absl::OkStatus();
      !status.ok()) {
    return done(status);
  }
  WhenBack(key, HeldCalls::Until::kState, std::move(gave_up),
           [this, key, name, done](const absl::Status& status) {
             if (!status.ok()) return done(status);
             const absl::StatusOr<Session*> session = FindForCall(key);
             if (!session.ok()) return done(session.status());
             checkpointer_->Ask(
                 **session, name,
                 [this, key, name, done](const absl::StatusOr<CheckpointSummary>& taken) {
                   NameCheckpoint(key, name, taken, done);
                 });
           });
}

void EngineLoop::NameCheckpoint(const SessionKey& key, const std::string& name,
                                const absl::StatusOr<CheckpointSummary>& taken,
                                const Checkpointer::Done& done) {
  if (!taken.ok() || name.empty()) return done(taken);
  const absl::StatusOr<Session*> session = FindForCall(key);
  if (!session.ok()) return done(session.status());
  // Others may have been named meanwhile.
  if (const absl::Status status = CheckName(**session, name); !status.ok()) return done(status);
  std::map<std::string, int64_t> checkpoints = (*session)->checkpoints();
  checkpoints[name] = static_cast<int64_t>(taken->session_position);
  (*session)->set_checkpoints(std::move(checkpoints));
  log_.Update(**session, /*controls=*/false);
  log_.WhenDurable(
      [taken, done](const absl::Status& status) { status.ok() ? done(taken) : done(status); });
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
                                                    const HistoryPoint& at) {
  MNEME_ASSIGN_OR_RETURN(Session * parent, FindForCall(key));
  MNEME_ASSIGN_OR_RETURN(const int64_t position, PositionOf(*parent, at));
  MNEME_CHECK(parent->loaded());
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
                                                        const HistoryPoint& to) {
  MNEME_ASSIGN_OR_RETURN(Session * session, FindForCall(key));
  MNEME_ASSIGN_OR_RETURN(const int64_t position, PositionOf(*session, to));
  MNEME_CHECK(session->loaded());
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
  if (!session->ComputedWithin(position)) {
    MNEME_CHECK(tiers_->DropImage(*session));
    updates_.Forget(*session);
  }
  disk_.Forget(*session);
  checkpointer_->Forget(*session);
  log_.Commit();  // what it logged before
  SessionLogs logs = session->LogsAt(position);
  const size_t updates = logs.updates.size();
  const size_t named = session->checkpoints().size();
  session->RollBack(std::move(logs));
  session->Touch(context_.clock.Now());
  log_.RollBack(*session, updates);
  if (session->checkpoints().size() < named) usage_->EraseForgotten(*session);
  return InfoOf(*session);
}

}  // namespace mneme
