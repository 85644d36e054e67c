#ifndef MNEME_ENGINE_SCHEDULING_STEP_DRAFT_H_
#define MNEME_ENGINE_SCHEDULING_STEP_DRAFT_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "engine/scheduling/plan.h"
#include "engine/scheduling/step_cost.h"

namespace mneme {

// A step while it is planned: who takes part so far, and what that and more of it take. One thread.
class StepDraft {
 public:
  // What is given must live as long as the draft.
  StepDraft(absl::Span<const Candidate> candidates, const PlanLimits& limits,
            const StepCostModel& cost)
      : candidates_(candidates), limits_(limits), cost_(cost), parts_(candidates.size()) {}

  // What `rows` rows more of a candidate add to the step; of an update, with 0 rows.
  StepWork WorkOf(size_t candidate, int64_t rows) const;
  // What more work costs, in the unit of credits: microseconds, or rows while no time is known.
  double CostOf(const StepWork& more) const;
  // Adds rows of a candidate; returns what they cost.
  double Take(size_t candidate, int64_t rows);

  bool taken(size_t candidate) const { return parts_[candidate].taken; }
  // Rows that a candidate still wants.
  int64_t Wanted(size_t candidate) const {
    return candidates_[candidate].rows_wanted - parts_[candidate].rows;
  }
  // Of the step as it is; a request that takes part without rows counts as one.
  int64_t rows() const { return rows_; }
  int64_t places() const { return places_; }
  const StepWork& work() const { return work_; }
  // 0: not known.
  double PredictUs() const { return cost_.PredictUs(work_); }
  // Who takes part, in the order in which they came in.
  std::vector<PlannedRows> planned() const;

 private:
  struct Part {
    bool taken = false;
    int64_t rows = 0;
    double cost = 0;
  };

  const absl::Span<const Candidate> candidates_;
  const PlanLimits& limits_;
  const StepCostModel& cost_;
  std::vector<Part> parts_;    // one for each candidate
  std::vector<size_t> order_;  // in which they came in
  StepWork work_;
  int64_t rows_ = 0;
  int64_t places_ = 0;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_SCHEDULING_STEP_DRAFT_H_
