#ifndef MNEME_ENGINE_TIERS_SESSION_TIERS_H_
#define MNEME_ENGINE_TIERS_SESSION_TIERS_H_

// Where each session's computed state is: on the device, in the host's memory, or on the way. The
// engine goes on with its steps while states move.

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/clock.h"
#include "engine/session/session.h"
#include "engine/stats.h"
#include "engine/tiers/host_pool.h"
#include "engine/tiers/state_image.h"
#include "engine/tiers/state_mover.h"
#include "engine/tiers/tier_policy.h"

namespace mneme {

struct TierOptions {
  int64_t host_cache_bytes = 0;         // for images of parked sessions; 0: none is ever parked
  int64_t tenant_host_cache_bytes = 0;  // of one tenant's; 0: no limit but the above
  bool use_files = false;               // states are also written to files, and read from them
};

// Called between steps only, when the device does nothing for sessions. A session that moves is
// leased: neither computed nor freed until its move has ended. Engine thread only.
class SessionTiers {
 public:
  // All but `wake`, which is called on another thread when a move has ended, must outlive it.
  // RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<SessionTiers>> Create(const CachePools& pools,
                                                              Backend& backend,
                                                              const TierOptions& options,
                                                              const Clock& clock, StatsSink& stats,
                                                              std::function<void()> wake);

  enum class Presence : uint8_t {
    kHere,      // on the device
    kComing,    // will be, when a move has ended
    kNoMemory,  // the device has no room for it now
  };
  // Begins to bring the session back if it is parked and `may_reserve`.
  Presence Bring(Session& session, bool may_reserve);
  bool IsHere(const Session& session) const { return !away_.contains(&session); }
  // What a parked session needs on the device.
  int64_t NeededBytes(const Session& session) const;

  // Parks some of `sessions`, of which nobody computes anything, unless that much is on its way
  // already: until `wanted_bytes` of device memory are. Returns those that leave. `for_good`: also
  // if they are wanted meanwhile.
  std::vector<Session*> MakeRoom(int64_t wanted_bytes, const std::vector<Session*>& sessions,
                                 bool for_good = false);

  // Whose state is to leave memory altogether so that there is room on the device: see
  // ChooseToDrop. Of `idle`, those that are on the device, and of those that are parked; null if
  // none of them `may_leave`.
  Session* ChooseToDrop(const std::vector<Session*>& idle,
                        const std::function<bool(const Session&)>& may_leave) const;

  // --- To and from files. ---
  // What a copy has become; nothing if the session was deleted meanwhile.
  using TakeCopy = std::function<void(std::optional<StateImage>)>;
  // The image of a parked session; null for any other. It stays while it is held, also when the
  // session has come back.
  std::shared_ptr<const StateImage> ParkedImage(const Session& session) const;
  // Begins to copy the state of a session that is here, while that is leased, into memory of no
  // pool; `take` is called in FinishMoves. False, and nothing begun, if the host has not that much.
  bool Copy(Session& session, TakeCopy take);
  // The session, which holds nothing on the device, is to be brought back from this image of a
  // file.
  void Adopt(Session& session, StateImage image);
  // Forgets such an image if it is not on its way to the device.
  void DropAdopted(const Session& session);
  // How many of them there are.
  int64_t adopted() const { return adopted_; }

  // Device memory that is on its way to be free.
  int64_t leaving_bytes() const { return leaving_bytes_; }

  // Takes note of the moves that have ended: those that arrived on the device are returned, and
  // those that should have left it but are `wanted` meanwhile. Any error is the device's end.
  absl::StatusOr<std::vector<Session*>> FinishMoves(
      const std::function<bool(const Session&)>& wanted);
  int64_t moves() const { return moves_; }

  // Forgets the image of a parked session, which is then on the device and holds nothing there;
  // false, and nothing changed, while it moves.
  bool DropImage(const Session& session);
  // Deletes a session, after its move if it has one.
  void Retire(std::unique_ptr<Session> session);

  // What it knows of the session.
  void Describe(const Session& session, SessionInfo* info) const;
  void AddTo(EngineLoad* load) const;

 private:
  enum class Stage : uint8_t { kLeaving, kParked, kComing, kCopying };

  struct Away {
    Stage stage;
    std::shared_ptr<StateImage> image;
    Session* session;
    int64_t device_bytes;  // that it holds, or held
    bool for_good;         // leaves even if it is wanted meanwhile
    absl::Time move_begin;
    TakeCopy take;                     // of one that is copied
    std::unique_ptr<Session> retired;  // `session`, if it is to be deleted when its move has ended
  };
  using Ended = std::pair<const Session*, absl::Status>;

  SessionTiers(const CachePools& pools, std::shared_ptr<HostPool> host, const TierOptions& options,
               const Clock& clock, StatsSink& stats, std::function<void()> wake);
  void Park(Session& session, bool for_good);
  ParkCandidate CandidateOf(const Session& session) const;
  Away& Add(Session& session, Stage stage, StateImage image, int64_t device_bytes);
  void Erase(std::unordered_map<const Session*, Away>::iterator entry);
  void BeginMove(Away& away, StateMover::Direction direction);
  // True if the session is on the device afterwards.
  bool FinishMove(Away& away, bool wanted);
  HostTier HostState() const;

  const CachePools& pools_;
  const TierOptions options_;
  const Clock& clock_;
  StatsSink& stats_;
  const std::function<void()> wake_;
  const std::shared_ptr<HostPool> host_;
  std::unordered_map<const Session*, Away> away_;  // sessions that are not simply on the device
  int64_t moves_ = 0, leaving_bytes_ = 0, adopted_ = 0;

  std::mutex mutex_;
  std::vector<Ended> ended_;           // guarded by mutex_
  std::unique_ptr<StateMover> mover_;  // null without a host tier. Its thread ends first
};

}  // namespace mneme

#endif  // MNEME_ENGINE_TIERS_SESSION_TIERS_H_
