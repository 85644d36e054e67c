#ifndef MNEME_ENGINE_STATS_H_
#define MNEME_ENGINE_STATS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace mneme {

// What one tenant has in flight.
struct TenantLoad {
  std::string name;
  double weight = 1;
  int64_t running_requests = 0;  // of EngineLoad's, as the next two
  int64_t waiting_requests = 0;
  int64_t pending_tokens = 0;
  double share = 0;  // of the time of the last seconds' steps, or of their rows: [0, 1]
};

// What the engine holds and has to do, at one moment. "Of late" is the last ten seconds, roughly.
struct EngineLoad {
  int64_t sessions = 0;
  int64_t running_requests = 0;  // have begun, and are first of their session
  int64_t waiting_requests = 0;  // behind another request of their session, or for memory
  int64_t queued_requests = 0;   // accepted and not looked at yet: the engine is in a step
  int64_t pending_tokens = 0;    // input received and not yet computed
  int64_t waiting_chunks = 0;    // closed, of all sessions, and not yet learnt

  absl::Duration step_time;   // of a step, on average of late
  double step_token_use = 0;  // rows of a step over --max_step_tokens, likewise
  double step_time_use = 0;   // time of a step with running streams over what it was planned for
  double requests_per_second = 0;  // that have ended of late

  int64_t device_bytes_used = 0;
  int64_t device_bytes_reserved = 0;
  int64_t device_bytes_limit = 0;
  int64_t idle_sessions = 0;          // hold device memory, but have no request in flight
  int64_t idle_bytes = 0;             // theirs: what would be free if they left the device
  int64_t host_bytes = 0;             // of token logs and request records
  int64_t host_cache_bytes_used = 0;  // by images of sessions that are parked or move
  int64_t host_cache_bytes_limit = 0;
  int64_t disk_cache_bytes_used = 0;   // by checkpoints
  int64_t disk_cache_bytes_limit = 0;  // 0: none

  int64_t parked_sessions = 0;      // of sessions: in the host's memory, or on the disk
  int64_t disk_sessions = 0;        // of these, on the disk
  int64_t log_pending_batches = 0;  // that the disk has not taken yet
  bool log_writable = true;

  std::vector<TenantLoad> tenants;  // that have requests in flight, or had of late
};

// What became of updates: one for each chunk and layer that learns.
struct UpdateCounts {
  int64_t updates = 0;  // all of them
  int64_t clipped = 0;  // of these: scaled down to clip_norm
  int64_t skipped = 0;  // not applied: not finite, or beyond max_relative_norm
};

// Told of what happens, on the engine thread; must be quick. The default does nothing.
class StatsSink {
 public:
  virtual ~StatsSink() = default;
  virtual void OnStep(int64_t /*rows*/, absl::Duration /*time*/) {}
  virtual void OnTokensIn(int64_t /*tokens*/) {}
  virtual void OnTokensOut(int64_t /*tokens*/) {}
  // Chunks that a step closed, of all sessions.
  virtual void OnChunksClosed(int64_t /*chunks*/) {}
  // Of a step, if it had any.
  virtual void OnUpdates(const UpdateCounts& /*counts*/) {}
  virtual void OnFirstToken(absl::Duration /*since_arrival*/) {}
  virtual void OnNextToken(absl::Duration /*since_last_token*/) {}
  // A session's state has left the device for the host's memory, or has come back.
  virtual void OnParked(int64_t /*bytes*/, absl::Duration /*time*/) {}
  virtual void OnUnparked(int64_t /*bytes*/, absl::Duration /*time*/) {}
  // A session's state and log have left memory: the disk has them. So much of the device's was
  // free.
  virtual void OnUnloaded(int64_t /*device_bytes*/) {}
  // A checkpoint was written, could not be written, or could not be restored from.
  virtual void OnCheckpoint(int64_t /*bytes*/, absl::Duration /*time*/) {}
  virtual void OnCheckpointFailed(const absl::Status& /*why*/) {}
  virtual void OnCheckpointRefused(const absl::Status& /*why*/) {}
  // A session's state is restored: of so many tokens from a checkpoint, of all that it has.
  virtual void OnRestoring(int64_t /*checkpoint_tokens*/, int64_t /*tokens*/) {}
};

}  // namespace mneme

#endif  // MNEME_ENGINE_STATS_H_
