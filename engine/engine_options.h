#ifndef MNEME_ENGINE_ENGINE_OPTIONS_H_
#define MNEME_ENGINE_ENGINE_OPTIONS_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "engine/durability/checkpointer.h"
#include "engine/durability/session_archives.h"

namespace mneme {

struct EngineOptions {
  // Rows of one step, at least 4. Requests join, leave and are cancelled between steps, and a
  // running stream waits for a step with prefill in it; more rows make prefill hardly faster on a
  // CPU.
  int64_t max_step_tokens = 512;
  int64_t default_max_tokens = 1024;
  int64_t max_sessions = 100000;
  int64_t max_queued_requests = 1024;   // accepted and not ended, of all sessions
  int64_t max_queued_tokens = 1 << 20;  // of their input, not computed yet
  // What a step shall take at most while streams run, unless decoding alone takes half of that;
  // docs/scheduling.md argues for the default.
  absl::Duration target_inter_token = absl::Milliseconds(8);
  // A request whose client has not read for so long, while events for it wait, is cancelled; so is
  // an archive's stream that waits for its client.
  absl::Duration slow_reader_limit = absl::Seconds(60);
  // Each > 0; 1 for tenants not named.
  std::vector<std::pair<std::string, double>> tenant_weights;
  // Device memory for KV pages, fast weights and open-chunk rows; 0: so large a part of what the
  // model and its scratch memory leave free.
  int64_t cache_bytes = 0;
  double device_memory_fraction = 0.5;
  // How long a typical session is: by it the memory is divided between KV pages, fast weights and
  // open chunks, on devices where it must be.
  int64_t session_tokens = 4096;
  // Host memory for the states of idle sessions that make room on the device, of all tenants and
  // of one at most. 0: none, and no limit.
  int64_t host_cache_bytes = 0;
  int64_t tenant_host_cache_bytes = 0;
  // What checkpoints of all sessions, and of one tenant's, may take on the disk. 0: no limit.
  int64_t disk_cache_bytes = 0;
  int64_t tenant_disk_cache_bytes = 0;
  ArchiveOptions archives;
  // When checkpoints of sessions that are kept are written, and how many of one are kept. Without
  // KV they hold what was learnt, but nothing can be restored from them.
  CheckpointPolicy checkpoints;
  bool checkpoint_kv = true;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_ENGINE_OPTIONS_H_
