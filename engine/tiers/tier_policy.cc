#include "engine/tiers/tier_policy.h"

#include <algorithm>
#include <numeric>

namespace mneme {
namespace {

bool HasRoom(const HostTier& host, int64_t tenant_bytes, int64_t bytes) {
  if (bytes > host.free_bytes) return false;
  return host.tenant_limit_bytes == 0 || tenant_bytes + bytes <= host.tenant_limit_bytes;
}

// Indices, the one not used for longest first.
template <typename Candidate>
std::vector<size_t> ByLastUse(const std::vector<Candidate>& candidates) {
  std::vector<size_t> order(candidates.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return candidates[a].last_used < candidates[b].last_used;
  });
  return order;
}

// Index of the one not used for longest that `fits` and may leave.
template <typename Fits>
std::optional<size_t> Oldest(const std::vector<ParkCandidate>& candidates, const Fits& fits) {
  std::optional<size_t> oldest;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (candidates[i].leased || !fits(candidates[i])) continue;
    if (!oldest || candidates[i].last_used < candidates[*oldest].last_used) oldest = i;
  }
  return oldest;
}

}  // namespace

std::vector<size_t> ChooseToPark(const std::vector<ParkCandidate>& candidates, int64_t wanted_bytes,
                                 HostTier host) {
  std::vector<size_t> chosen;
  for (const size_t i : ByLastUse(candidates)) {
    if (wanted_bytes <= 0) break;
    const ParkCandidate& candidate = candidates[i];
    int64_t& tenant_bytes = host.bytes_of_tenant[candidate.tenant];
    if (candidate.leased || candidate.device_bytes == 0) continue;
    if (!HasRoom(host, tenant_bytes, candidate.host_bytes)) continue;
    chosen.push_back(i);
    tenant_bytes += candidate.host_bytes;
    host.free_bytes -= candidate.host_bytes;
    wanted_bytes -= candidate.device_bytes;
  }
  return chosen;
}

std::optional<size_t> ChooseToDrop(const std::vector<ParkCandidate>& candidates,
                                   const HostTier& host) {
  const std::optional<size_t> oldest =
      Oldest(candidates, [](const ParkCandidate& c) { return c.device_bytes > 0; });
  if (!oldest) return oldest;
  const ParkCandidate& next = candidates[*oldest];
  HostTier empty = host;
  empty.free_bytes = host.limit_bytes;
  if (!HasRoom(empty, 0, next.host_bytes)) return oldest;
  const auto used = host.bytes_of_tenant.find(next.tenant);
  const int64_t tenant_bytes = used == host.bytes_of_tenant.end() ? 0 : used->second;
  // Others' going does not help a tenant that is at its own limit.
  const bool of_tenant = !HasRoom(empty, tenant_bytes, next.host_bytes);
  const std::optional<size_t> parked = Oldest(candidates, [&](const ParkCandidate& c) {
    return c.device_bytes == 0 && c.host_bytes > 0 && c.last_used <= next.last_used &&
           (!of_tenant || c.tenant == next.tenant);
  });
  return parked ? parked : oldest;
}

std::vector<size_t> ChooseToErase(const std::vector<DiskCandidate>& candidates, int64_t limit_bytes,
                                  int64_t tenant_limit_bytes) {
  int64_t bytes = 0;
  std::map<std::string, int64_t> bytes_of_tenant;
  for (const DiskCandidate& candidate : candidates) {
    bytes += candidate.bytes;
    bytes_of_tenant[candidate.tenant] += candidate.bytes;
  }
  std::vector<size_t> chosen;
  for (const size_t i : ByLastUse(candidates)) {
    const DiskCandidate& candidate = candidates[i];
    int64_t& tenant_bytes = bytes_of_tenant[candidate.tenant];
    const bool over = (limit_bytes > 0 && bytes > limit_bytes) ||
                      (tenant_limit_bytes > 0 && tenant_bytes > tenant_limit_bytes);
    const int64_t freed = candidate.bytes - candidate.kept_bytes;
    if (!over || freed == 0) continue;
    chosen.push_back(i);
    bytes -= freed;
    tenant_bytes -= freed;
  }
  return chosen;
}

}  // namespace mneme
