#include "engine/durability/disk_tier.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/durability/storage_error.h"

namespace mneme {

DiskTier::DiskTier(SessionLog& log, SessionTiers& tiers, Checkpointer& checkpointer, bool restores,
                   const Clock& clock, StatsSink& stats)
    : log_(log),
      tiers_(tiers),
      checkpointer_(checkpointer),
      restores_(restores),
      clock_(clock),
      stats_(stats) {}

bool DiskTier::NeedsCheckpoint(const Session& session) const {
  // What a replay that nobody waits for has computed is not worth one.
  return restores_ && session.ready() && !checkpointer_.HasAllOf(session);
}

bool DiskTier::MayLeave(const Session& session, const Wanted& wanted) const {
  if (!log_.Keeps(session) || wanted(session)) return false;
  return clock_.Now() >= retry_ || !NeedsCheckpoint(session);
}

void DiskTier::MakeRoom(const std::vector<Session*>& idle, const Wanted& wanted) {
  if (leaving_) return;
  if (clock_.Now() >= retry_) failure_ = log_.Health();
  if (!log_.Health().ok()) return;
  Session* const session = tiers_.ChooseToDrop(
      idle, [&](const Session& candidate) { return MayLeave(candidate, wanted); });
  if (session == nullptr) return;
  auto written = std::make_shared<std::optional<absl::Status>>();
  leaving_ = {.session = session, .until = clock_.Now() + kPatience, .written = written};
  if (!NeedsCheckpoint(*session)) {
    *written = absl::OkStatus();
    return;
  }
  checkpointer_.Ask(*session, "", [written](const absl::StatusOr<CheckpointSummary>& summary) {
    *written = summary.status();
  });
}

Session* DiskTier::Finish(const Wanted& wanted) {
  if (!leaving_) return nullptr;
  Session* const session = leaving_->session;
  const std::optional<absl::Status>& written = *leaving_->written;
  if (wanted(*session)) {
    leaving_.reset();
  } else if (written && !written->ok()) {
    GiveUp(*written);
  } else if (written && LeaveNow()) {
    return session;
  } else if (written && !log_.Health().ok()) {
    GiveUp(log_.Health());
  } else if (clock_.Now() >= leaving_->until) {
    GiveUp(absl::UnavailableError("the disk hangs or is too slow"));
  }
  return nullptr;
}

void DiskTier::GiveUp(const absl::Status& why) {
  failure_ = why;
  retry_ = clock_.Now() + kStorageRetryDelay;
  leaving_.reset();
}

bool DiskTier::LeaveNow() {
  Session& session = *leaving_->session;
  if (!log_.IsWritten(session) || checkpointer_.IsAskedFor(session)) return false;
  if (!tiers_.DropImage(session)) return false;  // it is being copied
  stats_.OnUnloaded(session.cache().held_bytes());
  checkpointer_.Forget(session);
  log_.Unload(&session);
  failure_ = absl::OkStatus();
  leaving_.reset();
  return true;
}

void DiskTier::Forget(const Session& session) {
  if (leaving_ && leaving_->session == &session) leaving_.reset();
}

absl::Time DiskTier::NextWake() const {
  return leaving_ ? leaving_->until : absl::InfiniteFuture();
}

}  // namespace mneme
