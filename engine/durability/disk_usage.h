#ifndef MNEME_ENGINE_DURABILITY_DISK_USAGE_H_
#define MNEME_ENGINE_DURABILITY_DISK_USAGE_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "engine/clock.h"
#include "engine/durability/session_log.h"
#include "engine/session/session.h"
#include "storage/checkpoint_files.h"
#include "storage/store_id.h"

namespace mneme {

// How much of the disk the checkpoints of each session take, and whose are erased when that is too
// much: nothing is lost with them, but what they hold is computed again from the log. Engine thread
// only.
class DiskUsage {
 public:
  // Of all sessions, and of one tenant's; 0: no limit. A checkpoint is written first, so that the
  // limit is exceeded by one at most.
  struct Limits {
    int64_t bytes = 0;
    int64_t tenant_bytes = 0;
  };

  // `log` must outlive this, but for letters that its end delivers; the clock also these.
  DiskUsage(SessionLog& log, const Limits& limits, const Clock& clock)
      : log_(log), limits_(limits), clock_(clock) {}

  // Begins to look what is there of these sessions. Once, at the start.
  void Survey(const std::vector<Session*>& sessions);
  // Knows the session, which is kept, until Forget.
  void Track(const Session& session);
  void Forget(const Session& session);
  // What a session takes now; nothing happens if it is not known any more.
  void Set(const StoreId& id, const CheckpointBytes& bytes);

  int64_t bytes() const { return bytes_; }
  CheckpointBytes BytesOf(const Session& session) const;
  // Begins to erase the checkpoints under names that the session has not (any more).
  void EraseForgotten(const Session& session);
  // Begins to erase the checkpoints of those of `sessions` that were not used for longest, if there
  // is too much, but for those that clients have named; returns these.
  std::vector<Session*> Trim(const std::vector<Session*>& sessions);
  // Whether Trim might find something. After one that could not erase all, not before
  // kStorageRetryDelay.
  bool is_over() const { return NextTrim() <= clock_.Now(); }
  // When that is so, if nothing happens before.
  absl::Time NextTrim() const;

 private:
  SessionLog& log_;
  const Limits limits_;
  const Clock& clock_;
  absl::flat_hash_map<StoreId, CheckpointBytes> bytes_of_;
  int64_t bytes_ = 0;
  bool changed_ = false;                     // since Trim
  absl::Time retry_ = absl::InfinitePast();  // no Trim before
};

}  // namespace mneme

#endif  // MNEME_ENGINE_DURABILITY_DISK_USAGE_H_
