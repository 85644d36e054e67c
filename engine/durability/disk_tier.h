#ifndef MNEME_ENGINE_DURABILITY_DISK_TIER_H_
#define MNEME_ENGINE_DURABILITY_DISK_TIER_H_

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/clock.h"
#include "engine/durability/checkpointer.h"
#include "engine/durability/session_log.h"
#include "engine/session/session.h"
#include "engine/tiers/session_tiers.h"

namespace mneme {

// Sessions that leave memory, one at a time: when a checkpoint has all that is computed of one and
// the log has all of it, both are given back, and the session lies on the disk like one that no
// request has used since the start. Called between steps. Engine thread only.
class DiskTier {
 public:
  // So long a request waits for one to leave; then it is told that the disk is too slow.
  static constexpr absl::Duration kPatience = absl::Seconds(30);

  // `restores`: sessions go on from checkpoints. Else none is written, and all of a session's log
  // is computed again. All must outlive this.
  DiskTier(SessionLog& log, SessionTiers& tiers, Checkpointer& checkpointer, bool restores,
           const Clock& clock, StatsSink& stats);

  using Wanted = std::function<bool(const Session&)>;  // whether requests of it wait

  // Chooses the next one to leave, if none is leaving, so that device memory becomes free: see
  // SessionTiers::ChooseToDrop. A parked one's image is written as it is, without the device.
  void MakeRoom(const std::vector<Session*>& idle, const Wanted& wanted);
  // The session that has left; null if none has. One that is wanted meanwhile stays. To be called
  // when something may have changed, and after MakeRoom.
  Session* Finish(const Wanted& wanted);
  bool is_leaving() const { return leaving_.has_value(); }
  // It is about to go, or to go back.
  void Forget(const Session& session);
  // When Finish is to be called though nothing has happened.
  absl::Time NextWake() const;
  // Why the last one that should have left did not; OK: it has left.
  const absl::Status& failure() const { return failure_; }

 private:
  struct Leaving {
    Session* session;
    absl::Time until;
    std::shared_ptr<std::optional<absl::Status>> written;  // what became of its checkpoint
  };

  bool NeedsCheckpoint(const Session& session) const;
  bool MayLeave(const Session& session, const Wanted& wanted) const;
  // Stops waiting for the one that leaves: it stays.
  void GiveUp(const absl::Status& why);
  bool LeaveNow();

  SessionLog& log_;
  SessionTiers& tiers_;
  Checkpointer& checkpointer_;
  const bool restores_;
  const Clock& clock_;
  StatsSink& stats_;
  std::optional<Leaving> leaving_;
  absl::Status failure_;
  absl::Time retry_ = absl::InfinitePast();  // no checkpoint is tried before
};

}  // namespace mneme

#endif  // MNEME_ENGINE_DURABILITY_DISK_TIER_H_
