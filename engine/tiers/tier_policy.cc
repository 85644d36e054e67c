#include "engine/tiers/tier_policy.h"

#include <algorithm>
#include <numeric>

namespace mneme {
namespace {

bool HasRoom(const HostTier& host, int64_t tenant_bytes, int64_t bytes) {
  if (bytes > host.free_bytes) return false;
  return host.tenant_limit_bytes == 0 || tenant_bytes + bytes <= host.tenant_limit_bytes;
}

}  // namespace

std::vector<size_t> ChooseToPark(const std::vector<ParkCandidate>& candidates, int64_t wanted_bytes,
                                 HostTier host) {
  std::vector<size_t> order(candidates.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return candidates[a].last_used < candidates[b].last_used;
  });
  std::vector<size_t> chosen;
  for (const size_t i : order) {
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

}  // namespace mneme
