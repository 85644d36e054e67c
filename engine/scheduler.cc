#include "engine/scheduler.h"

#include <algorithm>
#include <numeric>
#include <tuple>

namespace mneme {
namespace {

bool PrefillWaits(absl::Span<const Candidate> candidates) {
  return std::any_of(candidates.begin(), candidates.end(),
                     [](const Candidate& c) { return !c.decoding; });
}

}  // namespace

std::vector<PlannedRows> PlanStep(absl::Span<const Candidate> candidates, int64_t max_step_tokens) {
  std::vector<size_t> order(candidates.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto waited = [&](size_t i) {
    return std::tuple(candidates[i].last_step, candidates[i].arrival);
  };
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return waited(a) < waited(b); });

  std::vector<PlannedRows> plan;
  std::vector<bool> planned(candidates.size(), false);
  int64_t left = max_step_tokens, places = kMaxStepSequences;
  // Plans candidates of one kind until only so many rows or places are left.
  const auto take = [&](bool decoding, int64_t keep, int64_t keep_places) {
    for (size_t i : order) {
      if (left <= keep || places <= keep_places) return;
      if (candidates[i].decoding != decoding || planned[i]) continue;
      const int64_t rows = std::min(candidates[i].rows_wanted, left - keep);
      plan.push_back({i, rows});
      planned[i] = true;
      left -= std::max<int64_t>(rows, 1);
      --places;
    }
  };
  const bool prefill_waits = PrefillWaits(candidates);
  take(/*decoding=*/true, prefill_waits ? max_step_tokens / 4 : 0,
       prefill_waits ? kMaxStepSequences / 4 : 0);
  take(/*decoding=*/false, 0, 0);
  take(/*decoding=*/true, 0, 0);
  return plan;
}

}  // namespace mneme
