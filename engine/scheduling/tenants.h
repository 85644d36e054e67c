#ifndef MNEME_ENGINE_SCHEDULING_TENANTS_H_
#define MNEME_ENGINE_SCHEDULING_TENANTS_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "engine/scheduling/admission.h"
#include "engine/scheduling/decaying_rate.h"
#include "engine/stats.h"

namespace mneme {

// Who has requests in flight, what share is theirs, and what of the steps they got. One thread.
class Tenants {
 public:
  struct Tenant {
    int number = 0;  // as long as it is known
    double weight = 1;
    TenantLoad load;
    DecayingRate cost;  // of its part in the steps, in their plans' unit
  };

  // Weights of tenants by name, each > 0; 1 for those not named.
  explicit Tenants(const std::vector<std::pair<std::string, double>>& weights)
      : weights_(weights.begin(), weights.end()) {}

  const Tenant& Get(const std::string& name) { return Find(name); }

  // --- What is in flight is counted anew after each step, and added to in between. ---
  // Forgets the counts, and tenants that have had nothing for a while.
  void BeginCount(absl::Time now);
  void Count(const std::string& name, bool running, int64_t pending_tokens);
  void Charge(const std::string& name, absl::Time now, double cost) {
    Find(name).cost.Add(now, cost);
  }

  // What CheckQueue wants to know of the tenant, but for the rates.
  QueueState StateFor(const std::string& name);
  int64_t pending_tokens() const;
  // By name.
  std::vector<TenantLoad> Loads(absl::Time now) const;

 private:
  Tenant& Find(const std::string& name);

  const std::map<std::string, double> weights_;
  std::map<std::string, Tenant> tenants_;
  int next_number_ = 0;
  bool several_ = false;  // more than one was seen
};

}  // namespace mneme

#endif  // MNEME_ENGINE_SCHEDULING_TENANTS_H_
