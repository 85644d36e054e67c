#include "engine/scheduling/step_scheduler.h"

#include <algorithm>
#include <cmath>

namespace mneme {
namespace {

double Ratio(const DecayingRate& part, const DecayingRate& whole, absl::Time now) {
  const double per_second = whole.PerSecond(now);
  return per_second > 0 ? part.PerSecond(now) / per_second : 0;
}

}  // namespace

StepPlan StepScheduler::Plan(absl::Span<const Candidate> candidates) {
  StepPlan plan = PlanStep(candidates, limits_, cost_, std::move(state_));
  state_ = plan.state;
  return plan;
}

void StepScheduler::OnStepDone(const StepPlan& plan, absl::Time now, absl::Duration time) {
  const double time_us = absl::ToDoubleMicroseconds(time);
  const bool has_rows = plan.work.decode_rows + plan.work.prefill_rows > 0;
  if (has_rows) cost_.Observe(plan.work, time_us);  // others lack the model's pass over its weights
  steps_.Add(now, 1);
  step_seconds_.Add(now, absl::ToDoubleSeconds(time));
  step_rows_.Add(now, static_cast<double>(plan.work.decode_rows + plan.work.prefill_rows));
  if (!std::isfinite(plan.budget_us)) return;
  limited_steps_.Add(now, 1);
  limited_use_.Add(now, time_us / plan.budget_us);
}

void StepScheduler::AddTo(EngineLoad* load, absl::Time now) const {
  load->step_time = absl::Seconds(Ratio(step_seconds_, steps_, now));
  load->step_token_use =
      Ratio(step_rows_, steps_, now) / static_cast<double>(limits_.max_step_tokens);
  load->step_time_use = Ratio(limited_use_, limited_steps_, now);
}

}  // namespace mneme
