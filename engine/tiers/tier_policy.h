#ifndef MNEME_ENGINE_TIERS_TIER_POLICY_H_
#define MNEME_ENGINE_TIERS_TIER_POLICY_H_

// Which sessions leave the device: pure functions.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace mneme {

// A session that holds device memory.
struct ParkCandidate {
  std::string tenant;
  absl::Time last_used;
  bool leased = false;       // a request of it is in flight, or it is moving: never chosen
  int64_t device_bytes = 0;  // that its going frees
  int64_t host_bytes = 0;    // that its image takes
};

// The host's memory for images.
struct HostTier {
  int64_t free_bytes = 0;
  int64_t tenant_limit_bytes = 0;  // of one tenant's images; 0: only by what is free
  std::map<std::string, int64_t> bytes_of_tenant;  // that images take now
};

// Indices of those that are to be parked so that `wanted_bytes` become free: the one not used for
// longest first, passing over those that the host has no room for. Fewer if there are no more.
std::vector<size_t> ChooseToPark(const std::vector<ParkCandidate>& candidates, int64_t wanted_bytes,
                                 HostTier host);

}  // namespace mneme

#endif  // MNEME_ENGINE_TIERS_TIER_POLICY_H_
