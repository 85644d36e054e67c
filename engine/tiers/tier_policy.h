#ifndef MNEME_ENGINE_TIERS_TIER_POLICY_H_
#define MNEME_ENGINE_TIERS_TIER_POLICY_H_

// Which sessions leave the device, which leave memory, and which the disk: pure functions.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace mneme {

// A session that holds device memory, or is parked and holds the host's.
struct ParkCandidate {
  std::string tenant;
  absl::Time last_used;
  bool leased = false;       // a request of it is in flight, or it is moving: never chosen
  int64_t device_bytes = 0;  // that its going frees; 0: it is parked
  int64_t host_bytes = 0;    // that its image takes
};

// The host's memory for images.
struct HostTier {
  int64_t limit_bytes = 0;
  int64_t free_bytes = 0;
  int64_t tenant_limit_bytes = 0;  // of one tenant's images; 0: only by what is free
  std::map<std::string, int64_t> bytes_of_tenant;  // that images take now
};

// Indices of those that are to be parked so that `wanted_bytes` become free: the one not used for
// longest first, passing over those that the host has no room for. Fewer if there are no more.
std::vector<size_t> ChooseToPark(const std::vector<ParkCandidate>& candidates, int64_t wanted_bytes,
                                 HostTier host);

// Index of the one that is to leave memory so that there is room on the device, where the host has
// none for those that ChooseToPark would take: of those on the device the one not used for longest,
// unless a parked one has not been used for longer still and could make room for it in the host's
// memory; then that. Nothing if none of them may leave.
std::optional<size_t> ChooseToDrop(const std::vector<ParkCandidate>& candidates,
                                   const HostTier& host);

// A session that has checkpoints.
struct DiskCandidate {
  std::string tenant;
  absl::Time last_used;
  int64_t bytes = 0;       // that they take
  int64_t kept_bytes = 0;  // of those, by checkpoints that stay
};

// Indices of those whose checkpoints are to be erased so that no more than `limit_bytes` are left,
// and of no tenant more than `tenant_limit_bytes`: the one not used for longest first. 0: no limit.
std::vector<size_t> ChooseToErase(const std::vector<DiskCandidate>& candidates, int64_t limit_bytes,
                                  int64_t tenant_limit_bytes);

}  // namespace mneme

#endif  // MNEME_ENGINE_TIERS_TIER_POLICY_H_
