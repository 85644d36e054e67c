#ifndef MNEME_ENGINE_TIERS_IMAGE_SECTIONS_H_
#define MNEME_ENGINE_TIERS_IMAGE_SECTIONS_H_

// Images of computed states as sections of a checkpoint (docs/durability.md): first the shape, then
// each part's bytes as they are, then the final hidden row.

#include <cstdint>
#include <functional>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/tiers/state_image.h"
#include "storage/checkpoint.h"
#include "storage/section_writer.h"

namespace mneme {

// Writes the image, of a state of `pools`, behind the checkpoint's info. Without KV the keys and
// values are left out: from such a checkpoint no session can go on, but what it has learnt is kept.
// The writer's errors. Any thread.
absl::Status WriteImage(const StateImage& image, const CachePools& pools, bool with_kv,
                        SectionWriter& writer);

// Where an image that is read gets its memory; nothing if there is not so much.
using TakeHostMemory = std::function<std::optional<HostMemory>(int64_t bytes)>;

// Reads one to the very end of the file. Its update log is empty: that is the session log's. An
// image without KV has no pages. DATA_LOSS if it is damaged or makes no sense, FAILED_PRECONDITION
// if it is of a model or backend with other shapes, RESOURCE_EXHAUSTED if `take` gives
// no memory for it. Any thread where `take` may be called.
absl::StatusOr<StateImage> ReadImage(CheckpointReader& reader, const CachePools& pools,
                                     const TakeHostMemory& take);
// With memory of `host`, on its thread.
absl::StatusOr<StateImage> ReadImage(CheckpointReader& reader, const CachePools& pools,
                                     HostPool& host);

}  // namespace mneme

#endif  // MNEME_ENGINE_TIERS_IMAGE_SECTIONS_H_
