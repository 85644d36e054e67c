// EngineLoop's part that sessions are: what is asked of them, and when they end.

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "base/status_macros.h"
#include "engine/durability/storage_error.h"
#include "engine/error.h"
#include "engine/loop/engine_loop.h"

namespace mneme {

absl::StatusOr<SessionInfo> EngineLoop::CreateSession(SessionKey key, SessionOptions options) {
  MNEME_RETURN_IF_ERROR(refusal_);
  MNEME_RETURN_IF_ERROR(log_.Health());
  MNEME_RETURN_IF_ERROR(ValidateTenant(key.tenant));
  MNEME_ASSIGN_OR_RETURN(Session * session, sessions_.Create(std::move(key), std::move(options),
                                                             context_.clock.Now()));
  next_expiry_ = std::min(next_expiry_, session->expiry());
  log_.Create(*session);
  return session->info();
}

SessionInfo EngineLoop::InfoOf(const Session& session) const {
  SessionInfo info = session.info();
  if (info.residence == Residence::kRestoring && !queues_.Has(session)) {
    info.residence = log_.Keeps(session) ? Residence::kDisk : Residence::kHost;
  }
  info.disk_bytes = usage_->BytesOf(session).all;
  tiers_->Describe(session, &info);
  return info;
}

absl::StatusOr<SessionInfo> EngineLoop::GetSession(const SessionKey& key) const {
  MNEME_RETURN_IF_ERROR(failure_);
  MNEME_ASSIGN_OR_RETURN(const Session* session, sessions_.Find(key));
  MNEME_RETURN_IF_ERROR(session->damage());
  return InfoOf(*session);
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
    page.sessions.push_back(InfoOf(*session));
  }
  return page;
}

absl::StatusOr<SessionInfo> EngineLoop::UpdateSession(const SessionKey& key,
                                                      const SessionUpdate& update) {
  MNEME_RETURN_IF_ERROR(refusal_);
  MNEME_RETURN_IF_ERROR(log_.Health());
  MNEME_RETURN_IF_ERROR(ValidateControls(update.controls.AppliedTo(LearningControls())));
  MNEME_ASSIGN_OR_RETURN(Session * session, sessions_.Find(key));
  MNEME_RETURN_IF_ERROR(session->damage());
  session->Update(update);
  session->Touch(context_.clock.Now());
  log_.Update(*session, !update.controls.empty());
  next_expiry_ = std::min(next_expiry_, session->expiry());
  return InfoOf(*session);
}

absl::StatusOr<SessionInfo> EngineLoop::DeleteSession(const SessionKey& key) {
  MNEME_RETURN_IF_ERROR(refusal_);
  MNEME_RETURN_IF_ERROR(log_.Health());
  MNEME_ASSIGN_OR_RETURN(Session * session, sessions_.Find(key));
  SessionInfo info = InfoOf(*session);
  EndSession(session, MakeError(absl::StatusCode::kAborted, "the session was deleted",
                                {.reason = ErrorReason::kSessionDeleted}));
  return info;
}

void EngineLoop::EndSession(Session* session, const absl::Status& status) {
  EndRequests(*session, status);
  updates_.Forget(*session);
  disk_.Forget(*session);
  usage_->Forget(*session);
  checkpointer_->Forget(*session);
  log_.Delete(*session);
  tiers_->Retire(sessions_.Remove(SessionKey(session->key())));
}

bool EngineLoop::DeleteExpired(absl::Time now) {
  if (!log_.Health().ok()) {
    next_expiry_ = now + kStorageRetryDelay;
    return false;
  }
  bool deleted = false;
  for (Session* session : sessions_.Expired(now)) {
    if (IsWanted(*session)) {
      session->Touch(now);  // waiting is using
      log_.Note(*session, nullptr);
    } else {
      EndSession(session, absl::OkStatus());
      deleted = true;
    }
  }
  next_expiry_ = sessions_.NextExpiry();
  return deleted;
}

std::vector<Session*> EngineLoop::IdleSessions() const {
  std::unordered_set<const Session*> busy;
  for (const Job* head : queues_.Heads()) {
    if (!head->idle()) busy.insert(&head->session());
  }
  std::vector<Session*> idle;
  for (Session* session : sessions_.All()) {
    if (session->cache().held_bytes() > 0 && !busy.contains(session)) idle.push_back(session);
  }
  std::sort(idle.begin(), idle.end(), [](const Session* a, const Session* b) {
    return a->last_used_time() < b->last_used_time();
  });
  return idle;
}

}  // namespace mneme
