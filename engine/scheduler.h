#ifndef MNEME_ENGINE_SCHEDULER_H_
#define MNEME_ENGINE_SCHEDULER_H_

// What the next step computes, as a pure function: no clock, no lock, no device.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace mneme {

// A request at the head of its session's queue that could take part in the next step.
struct Candidate {
  int64_t rows_wanted = 0;  // 0: wants logits only, of a row that is already computed
  bool decoding = false;    // the row is the last generated token
  uint64_t last_step = 0;   // the last step that it took part in; 0: none
  uint64_t arrival = 0;     // order of arrival
};

// Requests that take part in one step, at most.
inline constexpr int64_t kMaxStepSequences = 256;

struct PlannedRows {
  size_t candidate = 0;  // index
  int64_t rows = 0;
};

// Decoding rows come first, so that no ingestion stalls a running stream, but leave a quarter of
// `max_step_tokens`, and of kMaxStepSequences, to prefill pieces if any waits; these get what is
// left. Within each, who has
// waited longest since its last step comes first, then who arrived first: with four rows or more
// nobody starves. A candidate that wants no rows counts as
// one. No candidate is planned twice; a prefill piece may be cut to fit.
std::vector<PlannedRows> PlanStep(absl::Span<const Candidate> candidates, int64_t max_step_tokens);

}  // namespace mneme

#endif  // MNEME_ENGINE_SCHEDULER_H_
