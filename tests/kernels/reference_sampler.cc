#include "tests/kernels/reference_sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace mneme {
namespace {

size_t Index(int32_t id) { return static_cast<size_t>(id); }

std::vector<double> AdjustedLogits(const std::vector<float>& logits, const SamplingParams& params,
                                   const std::map<int32_t, int>& counts,
                                   const std::vector<int32_t>& forbidden) {
  std::vector<double> adjusted(logits.begin(), logits.end());
  for (const auto& [id, count] : counts) {
    double& logit = adjusted[Index(id)];
    logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    logit -= params.presence_penalty;
    logit -= double{params.frequency_penalty} * count;
  }
  for (const auto& [id, bias] : params.logit_bias) adjusted[Index(id)] += bias;
  for (const int32_t id : forbidden) {
    adjusted[Index(id)] = -std::numeric_limits<double>::infinity();
  }
  return adjusted;
}

double Sum(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

}  // namespace

std::vector<double> ReferenceDistribution(const std::vector<float>& logits,
                                          const SamplingParams& params,
                                          const std::map<int32_t, int>& counts,
                                          const std::vector<int32_t>& forbidden) {
  const std::vector<double> adjusted = AdjustedLogits(logits, params, counts, forbidden);
  std::vector<size_t> order(adjusted.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return adjusted[a] > adjusted[b]; });
  const double highest = adjusted[order[0]];
  std::vector<double> weights;
  for (const double logit : adjusted) {
    weights.push_back(std::exp((logit - highest) / params.temperature));
  }
  for (size_t rank = 0; rank < order.size(); ++rank) {
    if (params.top_k > 0 && rank >= Index(params.top_k)) weights[order[rank]] = 0;
  }
  const double total = Sum(weights);
  double cumulative = 0;
  for (const size_t id : order) {
    const bool reached = params.top_p < 1 && cumulative >= params.top_p * total;
    cumulative += weights[id];
    if (reached) weights[id] = 0;
  }
  for (double& weight : weights) {
    if (weight < params.min_p) weight = 0;
  }
  const double kept = Sum(weights);
  for (double& weight : weights) weight /= kept;
  return weights;
}

int32_t ReferenceDraw(const std::vector<double>& distribution, double uniform) {
  double cumulative = 0;
  int32_t last = 0;
  for (size_t id = 0; id < distribution.size(); ++id) {
    if (distribution[id] == 0) continue;
    cumulative += distribution[id];
    last = static_cast<int32_t>(id);
    if (uniform < cumulative) break;
  }
  return last;
}

}  // namespace mneme
