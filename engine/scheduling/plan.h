#ifndef MNEME_ENGINE_SCHEDULING_PLAN_H_
#define MNEME_ENGINE_SCHEDULING_PLAN_H_

// What the next step computes, as a pure function: no clock, no lock, no device.

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "absl/types/span.h"
#include "engine/request.h"
#include "engine/scheduling/fair_ring.h"
#include "engine/scheduling/step_cost.h"

namespace mneme {

enum class WorkKind : uint8_t {
  kDecode,   // the row of the last generated token
  kPrefill,  // rows of input
  kUpdate,   // a closed chunk that no token waits for: one update, no rows
};

// A request, or a chunk that is to be learnt, that could take part in the next step.
struct Candidate {
  WorkKind kind = WorkKind::kPrefill;
  int64_t rows_wanted = 0;     // 0: wants logits only, of a row that is already computed
  int64_t position = 0;        // of the first of these rows
  int64_t updates = 0;         // of closed chunks, that come before the rows; 1 of a kUpdate
  bool learns = true;          // its rows close chunks
  bool begins_stream = false;  // kPrefill: input behind which a stream generates
  bool has_begun = false;      // it took part in a step, or holds memory for its rows
  bool awaited = false;        // kUpdate: a request waits for the memory of the chunk's rows
  int tenant = 0;
  double tenant_weight = 1;
  Priority priority = Priority::kNormal;
  uint64_t last_step = 0;  // the last step that it took part in; 0: none
  uint64_t arrival = 0;    // order of arrival
};

// What streams leave to input of a step's time, as of its rows, is a quarter where input waits.
inline constexpr double kDecodeShare = 0.75;

// Requests that take part in one step, at most.
inline constexpr int64_t kMaxStepSequences = 256;

struct PlanLimits {
  int64_t max_step_tokens = 512;
  // What a step with decode rows shall take at most.
  double target_us = std::numeric_limits<double>::infinity();
  int64_t chunk_tokens = 0;      // C; 0: nothing learns
  int64_t attention_tokens = 0;  // the widest window; 0: some layer attends to everything
};

struct PlannedRows {
  size_t candidate = 0;  // index
  int64_t rows = 0;
  // Its part of the step's time, in microseconds; in rows while times are not known.
  double cost = 0;
};

// What a plan leaves for the next one.
struct PlanState {
  FairRing decode, prefill;
  // Time of updates that ran beside rows, not yet paid off by what such may take of rows' time.
  double update_debt_us = 0;
  // Since one left input waiting.
  int64_t steps_since_input_waited = std::numeric_limits<int32_t>::max();
};

struct StepPlan {
  std::vector<PlannedRows> rows;  // no candidate twice; updates have none
  StepWork work;
  double expected_us = 0;  // 0: not known
  double budget_us = 0;    // what the step was to take at most; infinite: any time
  PlanState state;         // for the next call
};

// Decode rows come first, so that no ingestion stalls a running stream, but leave a quarter of
// max_step_tokens, and of kMaxStepSequences, to prefill pieces if any waits. These then get what is
// left of the rows and, if streams run, of the time: target_us, or what the decode rows take alone
// over kDecodeShare if that is more. While too little is known about times, such pieces are short.
// Each step has one piece at least, so that neither kind starves.
//
// Updates that no token waits for come before prefill pieces, but never beyond the step's time, and
// at most a hundredth of the time of steps with rows goes to them in the long run: streams keep
// their pace, and ingestion does not keep updates waiting for ever. Those whose memory a request
// waits for get one in each step, and more while there is time. A step without any rows takes as
// many as target_us has time for, and as there are chunks in max_step_tokens.
//
// Of rows of each kind, flows share by deficit round robin: by the weights of tenants, and within a
// tenant by FlowWeight. Within a flow, who has waited longest since its last step comes first, then
// who arrived first. A candidate that wants no rows counts as one; a piece may be cut to fit.
StepPlan PlanStep(absl::Span<const Candidate> candidates, const PlanLimits& limits,
                  const StepCostModel& cost, PlanState state);

}  // namespace mneme

#endif  // MNEME_ENGINE_SCHEDULING_PLAN_H_
