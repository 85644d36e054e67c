// EngineLoop's part that memory is: who leaves the device for whom, who comes back, and what all of
// it comes to.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/error.h"
#include "engine/loop/engine_loop.h"

namespace mneme {

void EngineLoop::BringBack(Job* job) {
  const SessionTiers::Presence presence =
      tiers_->Bring(job->session(), /*may_reserve=*/starved_.empty());
  if (presence == SessionTiers::Presence::kNoMemory) starved_.push_back(job);
}

bool EngineLoop::IsWaitedFor(const Session& session) const {
  const Job* const head = queues_.Head(session);
  return held_.Has(session) || (head != nullptr && !head->idle());
}

bool EngineLoop::FinishMoves() {
  const int64_t before = tiers_->moves();
  const auto here =
      tiers_->FinishMoves([this](const Session& session) { return IsWaitedFor(session); });
  if (!here.ok()) {
    Fail(here.status());
    return true;
  }
  for (Session* session : *here) {
    if (session->ready()) updates_.Note(*session);  // else a replay applies its updates
  }
  return tiers_->moves() != before;
}

bool EngineLoop::MakeRoom() {
  if (starved_.empty() || tiers_->leaving_bytes() >= WantedBytes()) return false;
  const std::vector<Session*> idle = IdleSessions();
  const auto leaving = tiers_->MakeRoom(WantedBytes(), idle);
  for (Session* session : leaving) updates_.Forget(*session);
  if (tiers_->leaving_bytes() >= WantedBytes()) return false;
  disk_.MakeRoom(idle, [this](const Session& session) { return IsWanted(session); });
  return FinishLeaving();
}

bool EngineLoop::FinishLeaving() {
  Session* const left = disk_.Finish([this](const Session& session) { return IsWanted(session); });
  if (left != nullptr) updates_.Forget(*left);
  return left != nullptr;
}

void EngineLoop::TrimDisk() {
  if (!usage_->is_over()) return;
  for (const Session* session : usage_->Trim(sessions_.All())) checkpointer_->OnErased(*session);
}

int64_t EngineLoop::WantedBytes() const {
  const Job& first = *starved_[0];
  const int64_t needed = tiers_->IsHere(first.session()) ? first.missing_bytes()
                                                         : tiers_->NeededBytes(first.session());
  const MemoryBudget& budget = pools_->budget();
  const int64_t free = budget.limit_bytes() - budget.reserved_bytes();
  // What is free may lie in other pools than what is needed.
  return std::max<int64_t>(needed - free, 1);
}

void EngineLoop::RelieveMemory() {
  if (starved_.empty() || tiers_->moves() > 0 || disk_.is_leaving()) return;
  for (const Job* job : queues_.Heads()) {
    // A paused generation goes on when its reader does, and gives its memory back in the end.
    if (job->holds_lease()) return;
  }
  std::vector<Session*> later;
  for (Job* job : starved_) {
    // A throw-away session is gone with its request.
    if (job != starved_[0] && !job->session().key().id.empty()) later.push_back(&job->session());
  }
  const auto leaving = tiers_->MakeRoom(WantedBytes(), later, /*for_good=*/true);
  for (Session* session : leaving) updates_.Forget(*session);
  if (!leaving.empty()) return;
  const std::vector<Session*> idle = IdleSessions();
  const absl::Duration unused =
      idle.empty() ? absl::ZeroDuration() : context_.clock.Now() - idle[0]->last_used_time();
  std::string message =
      absl::StrCat(idle.size(), " idle sessions hold the session memory, one for ",
                   absl::FormatDuration(absl::Trunc(unused, absl::Seconds(1))),
                   "; delete some, or raise --cache_bytes or --host_cache_bytes");
  if (!disk_.failure().ok()) {
    absl::StrAppend(
        &message, ". They could not leave for the disk: ", std::string(disk_.failure().message()));
  }
  EndJob(*starved_[0], MakeError(absl::StatusCode::kResourceExhausted, message,
                                 {.reason = ErrorReason::kOutOfMemory,
                                  .retryable = true,
                                  .retry_delay = absl::Seconds(5)}));
}

EngineLoad EngineLoop::load() const {
  const absl::Time now = context_.clock.Now();
  EngineLoad load = {.sessions = sessions_.size(),
                     .waiting_chunks = updates_.waiting_chunks(),
                     .requests_per_second = ended_.PerSecond(now),
                     .device_bytes_used = pools_->held_bytes(),
                     .device_bytes_reserved = pools_->budget().reserved_bytes(),
                     .device_bytes_limit = pools_->budget().limit_bytes(),
                     .host_bytes = sessions_.host_bytes(),
                     .disk_cache_bytes_used = usage_->bytes(),
                     .disk_cache_bytes_limit = context_.options.disk_cache_bytes,
                     .tenants = tenants_.Loads(now)};
  for (const TenantLoad& tenant : load.tenants) {
    load.running_requests += tenant.running_requests;
    load.waiting_requests += tenant.waiting_requests;
    load.pending_tokens += tenant.pending_tokens;
  }
  for (const Session* session : sessions_.All()) load.disk_sessions += session->loaded() ? 0 : 1;
  load.parked_sessions = load.disk_sessions;
  for (Session* session : IdleSessions()) {
    ++load.idle_sessions;
    load.idle_bytes += session->cache().held_bytes();
  }
  scheduler_.AddTo(&load, now);
  tiers_->AddTo(&load);
  log_.AddTo(&load);
  return load;
}

}  // namespace mneme
