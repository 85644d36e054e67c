#ifndef MNEME_ENGINE_SCHEDULING_STREAM_GATE_H_
#define MNEME_ENGINE_SCHEDULING_STREAM_GATE_H_

#include <map>
#include <optional>

#include "engine/scheduling/plan.h"
#include "engine/scheduling/step_cost.h"

namespace mneme {

// Which streams may begin now, so that those that run keep their pace: as long as a step of all
// their decode rows stays within the target, or within kDecodeShare of it where steps of late left
// input waiting; or, where that is more, within twice what the new one takes alone. A tenant with
// less than its share, by weight, of the streams that run may begin one in any case: nobody is
// locked out by others' long answers. Nor by a tenant's own short ones: where one may not begin, no
// later one of the tenant may that is not more urgent. Made anew for each step; needs no clock.
class StreamGate {
 public:
  // `limits` and `cost` must outlive it; `state` is the last plan's.
  StreamGate(const PlanLimits& limits, const StepCostModel& cost, const PlanState& state);

  // A candidate that asks to begin a stream. One that holds memory has been admitted: it gives that
  // back only by going on.
  static bool IsBeginning(const Candidate& candidate);

  // Takes notice of a candidate; of all before Admit is asked about the first.
  void Note(const Candidate& candidate);
  // Whether the stream of a candidate that IsBeginning may begin; then it runs from now on. Asked
  // in the order of arrival.
  bool Admit(const Candidate& candidate);

 private:
  struct Tenant {
    double weight = 1;
    double streams = 0;
    std::optional<Priority> refused;  // the most urgent of those that may not begin
  };

  // A decode row of the candidate's stream, once its input is read.
  StepWork RowOf(const Candidate& candidate) const;
  void Count(const Candidate& stream);

  const PlanLimits& limits_;
  const StepCostModel& cost_;
  const double target_us_;  // of a step of decode rows alone
  StepWork running_;        // such a step of the streams that run
  std::map<int, Tenant> tenants_;
  double weights_ = 0;  // of all tenants
};

}  // namespace mneme

#endif  // MNEME_ENGINE_SCHEDULING_STREAM_GATE_H_
