#ifndef MNEME_ENGINE_TIERS_STATE_IMAGE_H_
#define MNEME_ENGINE_TIERS_STATE_IMAGE_H_

// A session's computed state away from the device: its shape, and the content of its blocks in host
// memory. Image, shape and pools are functions of the model, so that an image fits every engine
// that serves the same model on the same kind of backend.

#include <cstdint>
#include <vector>

#include "engine/session/computed_state.h"
#include "engine/session/session_cache.h"
#include "engine/tiers/host_pool.h"

namespace mneme {

struct StateImage {
  StateShape shape;
  HostMemory bytes;  // the parts of `shape`, one after another
};

enum class StatePart : uint8_t {
  kDelta,         // ΔW of TTT layer `index`, as the backend keeps it
  kKv,            // the pages of KV group `index`
  kOpenChunk,     // rows of the open chunk in TTT layer `index`: t, then z, as many as there are
  kWaitingChunk,  // rows of the `index`-th chunk that waits: of all layers, t and z in turn
};

struct ImagePart {
  StatePart part = StatePart::kDelta;
  int64_t index = 0;
  int64_t bytes = 0;

  friend bool operator==(const ImagePart&, const ImagePart&) = default;
};

// What an image of `shape` consists of, in its order.
std::vector<ImagePart> PartsOf(const StateShape& shape, const CachePools& pools);
int64_t ImageBytes(const StateShape& shape, const CachePools& pools);

// Where a state's parts lie on the device, one after another in the same order; valid until the
// next step of the state.
std::vector<MemoryRange> DeviceRanges(const ComputedState& state, const CachePools& pools);

// A copy between the device and the host, in either direction.
struct HostCopy {
  void* device = nullptr;
  void* host = nullptr;
  int64_t bytes = 0;
};

// The copies between two lists of ranges of equally many bytes.
std::vector<HostCopy> CopiesBetween(const std::vector<MemoryRange>& device,
                                    const std::vector<MemoryRange>& host);

}  // namespace mneme

#endif  // MNEME_ENGINE_TIERS_STATE_IMAGE_H_
