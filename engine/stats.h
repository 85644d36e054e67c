#ifndef MNEME_ENGINE_STATS_H_
#define MNEME_ENGINE_STATS_H_

#include <cstdint>

#include "absl/time/time.h"

namespace mneme {

// What the engine holds and has to do, at one moment.
struct EngineLoad {
  int64_t sessions = 0;
  int64_t running_requests = 0;  // at the head of their session's queue
  int64_t waiting_requests = 0;  // behind another request of the same session
  int64_t pending_tokens = 0;    // input received and not yet computed
  int64_t device_bytes_used = 0;
  int64_t device_bytes_reserved = 0;
  int64_t device_bytes_limit = 0;
  int64_t host_bytes = 0;
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
  virtual void OnFirstToken(absl::Duration /*since_arrival*/) {}
  virtual void OnNextToken(absl::Duration /*since_last_token*/) {}
};

}  // namespace mneme

#endif  // MNEME_ENGINE_STATS_H_
