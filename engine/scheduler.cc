#include "engine/scheduler.h"

#include <algorithm>
#include <numeric>
#include <tuple>

namespace mneme {

std::vector<PlannedRows> PlanStep(absl::Span<const Candidate> candidates, int64_t max_step_tokens) {
  std::vector<size_t> order(candidates.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto priority = [&](size_t i) {
    const Candidate& c = candidates[i];
    return std::tuple(!c.decoding, c.last_step, c.arrival);
  };
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return priority(a) < priority(b); });
  std::vector<PlannedRows> plan;
  int64_t left = max_step_tokens;
  for (size_t i : order) {
    if (left == 0) break;
    const int64_t rows = std::min(candidates[i].rows_wanted, left);
    plan.push_back({i, rows});
    left -= std::max<int64_t>(rows, 1);
  }
  return plan;
}

}  // namespace mneme
