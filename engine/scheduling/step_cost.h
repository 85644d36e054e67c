#ifndef MNEME_ENGINE_SCHEDULING_STEP_COST_H_
#define MNEME_ENGINE_SCHEDULING_STEP_COST_H_

// How long a step takes, learnt from the steps before it. Knows no clock: it is told their times.

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace mneme {

// A step by what its time depends on. Keys are counted once for each row that attends to them: a
// decode row reads its own from memory, while the rows of a prefill piece share theirs, so that a
// key costs the two differently.
struct StepWork {
  int64_t decode_rows = 0;
  int64_t decode_keys = 0;
  int64_t prefill_rows = 0;
  int64_t prefill_keys = 0;
  int64_t updates = 0;  // chunks whose update is applied

  StepWork& operator+=(const StepWork& more);
  friend StepWork operator+(StepWork a, const StepWork& b) { return a += b; }
  friend bool operator==(const StepWork& a, const StepWork& b) = default;
};

// time = c₀ + Σ cᵢ · workᵢ with cᵢ ≥ 0, fitted to the relative errors of the last kWindow steps. A
// step that took far longer than the rest say (another process, a page fault) hardly counts; what
// the last steps had nothing of keeps the cost that it had. One thread.
class StepCostModel {
 public:
  static constexpr size_t kWindow = 128;  // steps

  // A step of this work took so long; ignored unless positive.
  void Observe(const StepWork& work, double time_us);

  // What a step of this work is expected to take; 0 while nothing is known.
  double PredictUs(const StepWork& work) const;
  // By what factor steps take longer than predicted, but for one of the window; between 1 and 2.
  double margin() const { return margin_; }
  // Enough steps with prefill pieces were seen to predict them.
  bool knows_prefill() const { return prefill_steps_ >= 4; }

 private:
  static constexpr size_t kTerms = 6;
  using Terms = std::array<double, kTerms>;

  struct Step {
    Terms terms;
    double time_us;
  };

  static Terms TermsOf(const StepWork& work);
  double Predict(const Terms& terms) const;
  void Fit();
  // Weighted least squares with costs ≥ 0, drawn a little towards those before.
  void SolveWeighted(const std::vector<double>& weights);
  // |time / predicted − 1| of each step of the window.
  std::vector<double> RelativeErrors() const;
  void SetMargin();

  std::vector<Step> window_;  // the last steps; the oldest is overwritten next
  size_t steps_ = 0;
  size_t prefill_steps_ = 0;
  Terms costs_us_{};
  double margin_ = 1;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_SCHEDULING_STEP_COST_H_
