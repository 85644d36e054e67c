#include "engine/scheduling/tenants.h"

#include <algorithm>

namespace mneme {

Tenants::Tenant& Tenants::Find(const std::string& name) {
  const auto [entry, is_new] = tenants_.try_emplace(name);
  Tenant& tenant = entry->second;
  if (!is_new) return tenant;
  const auto weight = weights_.find(name);
  if (weight != weights_.end()) tenant.weight = weight->second;
  tenant.number = next_number_++;
  tenant.load = {.name = name, .weight = tenant.weight};
  several_ = several_ || tenants_.size() > 1;
  return tenant;
}

void Tenants::BeginCount(absl::Time now) {
  double cost = 0;
  for (const auto& [name, tenant] : tenants_) cost += tenant.cost.PerSecond(now);
  for (auto entry = tenants_.begin(); entry != tenants_.end();) {
    Tenant& tenant = entry->second;
    const bool idle = tenant.load.running_requests + tenant.load.waiting_requests == 0;
    if (idle && tenant.cost.PerSecond(now) <= cost / 1000) {
      entry = tenants_.erase(entry);
      continue;
    }
    tenant.load = {.name = entry->first, .weight = tenant.weight};
    ++entry;
  }
}

void Tenants::Count(const std::string& name, bool running, int64_t pending_tokens) {
  TenantLoad& load = Find(name).load;
  ++(running ? load.running_requests : load.waiting_requests);
  load.pending_tokens += pending_tokens;
}

QueueState Tenants::StateFor(const std::string& name) {
  const Tenant& asking = Find(name);
  QueueState state;
  // Where tenants share at all, one more may come at any time.
  double weights = asking.weight + (several_ ? 1 : 0);
  for (const auto& [other_name, tenant] : tenants_) {
    const int64_t requests = tenant.load.running_requests + tenant.load.waiting_requests;
    state.requests += requests;
    state.tokens += tenant.load.pending_tokens;
    if (&tenant != &asking && requests > 0) weights += tenant.weight;
  }
  state.tenant_requests = asking.load.running_requests + asking.load.waiting_requests;
  state.tenant_tokens = asking.load.pending_tokens;
  state.tenant_share = asking.weight / weights;
  return state;
}

int64_t Tenants::pending_tokens() const {
  int64_t tokens = 0;
  for (const auto& [name, tenant] : tenants_) tokens += tenant.load.pending_tokens;
  return tokens;
}

std::vector<TenantLoad> Tenants::Loads(absl::Time now) const {
  std::vector<TenantLoad> loads;
  double cost = 0;
  for (const auto& [name, tenant] : tenants_) {
    loads.push_back(tenant.load);
    loads.back().share = tenant.cost.PerSecond(now);
    cost += loads.back().share;
  }
  for (TenantLoad& load : loads) load.share = cost > 0 ? load.share / cost : 0;
  return loads;
}

}  // namespace mneme
