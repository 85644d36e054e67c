#ifndef MNEME_ENGINE_SCHEDULING_STEP_SCHEDULER_H_
#define MNEME_ENGINE_SCHEDULING_STEP_SCHEDULER_H_

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "engine/scheduling/decaying_rate.h"
#include "engine/scheduling/plan.h"
#include "engine/scheduling/step_cost.h"
#include "engine/scheduling/stream_gate.h"
#include "engine/stats.h"

namespace mneme {

// PlanStep with its memory: what steps cost, and whose turn it is. Is told the time. One thread.
class StepScheduler {
 public:
  explicit StepScheduler(const PlanLimits& limits) : limits_(limits) {}

  // Decides who begins a stream in the next step; until then no other method may be called.
  StreamGate Gate() const { return {limits_, cost_, state_}; }
  StepPlan Plan(absl::Span<const Candidate> candidates);
  // The step of `plan` took so long, until `now`.
  void OnStepDone(const StepPlan& plan, absl::Time now, absl::Duration time);

  // The fields of steps.
  void AddTo(EngineLoad* load, absl::Time now) const;

 private:
  const PlanLimits limits_;
  StepCostModel cost_;
  PlanState state_;

  DecayingRate steps_, step_seconds_, step_rows_;
  DecayingRate limited_steps_, limited_use_;  // those with a budget of time, and how full they were
};

}  // namespace mneme

#endif  // MNEME_ENGINE_SCHEDULING_STEP_SCHEDULER_H_
