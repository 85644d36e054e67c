#ifndef MNEME_ENGINE_DURABILITY_CHECKPOINT_IO_H_
#define MNEME_ENGINE_DURABILITY_CHECKPOINT_IO_H_

// Checkpoints as they are written and read, on the disk's thread.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/session/cache_pools.h"
#include "engine/tiers/state_image.h"
#include "storage/checkpoint_files.h"
#include "storage/session_store.h"

namespace mneme {

// What the states of one engine have in common.
struct StateFormat {
  const CachePools& pools;
  uint64_t model_fingerprint = 0;  // equal where states may be exchanged
};

struct NewCheckpoint {
  StoreId id;
  CheckpointInfo info;
  std::vector<std::string> names;  // that checkpoints of the session have, beside `info.name`
};

// Writes `image`, without KV unless the info has it, and drops the session's old checkpoints:
// beyond what `policy` keeps, behind the point of a rollback, and with names that none has any
// more or that this one takes. The disk's errors; NOT_FOUND if the session has been deleted, of
// which nothing is then left.
absl::Status WriteCheckpoint(SessionStore& store, const NewCheckpoint& checkpoint,
                             const StateImage& image, const StateFormat& format,
                             const CheckpointPolicy& policy);

struct StoredImage {
  std::optional<StateImage> image;  // its log of updates is `log`'s; nothing: replay the whole log
  std::vector<absl::Status> refused;  // newer checkpoints, and why
};

// From the newest checkpoint, at `max_position` at most, that is whole and fits the session's log
// `log`, into memory of no pool.
StoredImage ReadNewestImage(SessionStore& store, const StoreId& id, const SessionState& log,
                            const StateFormat& format, int64_t max_position);

}  // namespace mneme

#endif  // MNEME_ENGINE_DURABILITY_CHECKPOINT_IO_H_
