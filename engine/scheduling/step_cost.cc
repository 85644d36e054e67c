#include "engine/scheduling/step_cost.h"

#include <algorithm>
#include <cmath>

namespace mneme {
namespace {

// The fit follows each step while it knows little, and is spared later.
constexpr size_t kFitEach = 8;
constexpr int kReweightings = 2;
constexpr int kSweeps = 60;
// How much the costs before weigh against the window; decides only what the window leaves open.
constexpr double kInertia = 1e-3;
// Of 128 steps the slowest may be another process's doing; the next one counts, and a hundredth for
// the error of the fit itself.
constexpr double kMarginQuantile = 0.995;
constexpr double kFitError = 0.01;

// The value that a share of `values` does not exceed.
double Quantile(std::vector<double> values, double share) {
  const auto at =
      values.begin() + static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

}  // namespace

StepWork& StepWork::operator+=(const StepWork& more) {
  decode_rows += more.decode_rows;
  decode_keys += more.decode_keys;
  prefill_rows += more.prefill_rows;
  prefill_keys += more.prefill_keys;
  updates += more.updates;
  return *this;
}

StepCostModel::Terms StepCostModel::TermsOf(const StepWork& work) {
  return {1.0,
          static_cast<double>(work.decode_rows),
          static_cast<double>(work.decode_keys),
          static_cast<double>(work.updates),
          static_cast<double>(work.prefill_keys),
          static_cast<double>(work.prefill_rows)};
}

double StepCostModel::Predict(const Terms& terms) const {
  double time_us = 0;
  for (size_t i = 0; i < kTerms; ++i) time_us += costs_us_[i] * terms[i];
  return time_us;
}

double StepCostModel::PredictUs(const StepWork& work) const { return Predict(TermsOf(work)); }

void StepCostModel::Observe(const StepWork& work, double time_us) {
  if (!(time_us > 0) || !std::isfinite(time_us)) return;
  const Step step = {TermsOf(work), time_us};
  if (window_.size() < kWindow) {
    window_.push_back(step);
  } else {
    window_[steps_ % kWindow] = step;
  }
  ++steps_;
  if (work.prefill_rows > 0) ++prefill_steps_;
  if (steps_ <= 2 * kFitEach || steps_ % kFitEach == 0) Fit();
}

std::vector<double> StepCostModel::RelativeErrors() const {
  std::vector<double> errors;
  errors.reserve(window_.size());
  for (const Step& step : window_) {
    errors.push_back(std::abs(step.time_us / std::max(Predict(step.terms), 1e-9) - 1));
  }
  return errors;
}

void StepCostModel::Fit() {
  std::vector<double> weights(window_.size());
  for (int round = 0; round <= kReweightings; ++round) {
    const std::vector<double> errors = RelativeErrors();
    // Errors beyond twice the usual one count linearly instead of squared (Huber). Costs that the
    // machine has left behind altogether must not call every step an outlier.
    const double usual = std::max(2 * Quantile(errors, 0.5), 0.02);
    for (size_t i = 0; i < weights.size(); ++i) {
      const double time = window_[i].time_us;
      weights[i] = std::min(1.0, usual / std::max(errors[i], 1e-9)) / (time * time);
    }
    SolveWeighted(weights);
  }
  SetMargin();
}

void StepCostModel::SolveWeighted(const std::vector<double>& weights) {
  std::array<Terms, kTerms> a{};
  Terms b{};
  for (size_t s = 0; s < window_.size(); ++s) {
    const Terms& x = window_[s].terms;
    for (size_t i = 0; i < kTerms; ++i) {
      b[i] += weights[s] * x[i] * window_[s].time_us;
      for (size_t j = 0; j < kTerms; ++j) a[i][j] += weights[s] * x[i] * x[j];
    }
  }
  for (size_t i = 0; i < kTerms; ++i) {
    const double inertia = kInertia * a[i][i];
    b[i] += inertia * costs_us_[i];
    a[i][i] += inertia;
  }
  // From the last term on: what cannot be told apart is put down to prefill rows, so that a piece
  // is rather made too short than too long.
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    for (size_t i = kTerms; i-- > 0;) {
      if (a[i][i] <= 0) continue;
      double rest = b[i];
      for (size_t j = 0; j < kTerms; ++j) {
        if (j != i) rest -= a[i][j] * costs_us_[j];
      }
      costs_us_[i] = std::max(rest / a[i][i], 0.0);
    }
  }
}

void StepCostModel::SetMargin() {
  std::vector<double> ratios;
  ratios.reserve(window_.size());
  for (const Step& step : window_) {
    ratios.push_back(step.time_us / std::max(Predict(step.terms), 1e-9));
  }
  margin_ = std::clamp(Quantile(std::move(ratios), kMarginQuantile) + kFitError, 1.0, 2.0);
}

}  // namespace mneme
