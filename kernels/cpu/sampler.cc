#include "kernels/cpu/sampler.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

namespace mneme {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();

// −∞ or finite. std::max gives its first argument where the second is NaN.
float Cleaned(float logit) { return std::min(std::max(-kInfinity, logit), kLargest); }

bool InVocabulary(int32_t id, size_t vocab_size) {
  return id >= 0 && static_cast<size_t>(id) < vocab_size;
}

int32_t LowestAllowed(absl::Span<const int32_t> forbidden, size_t vocab_size) {
  for (int32_t id = 0; InVocabulary(id, vocab_size); ++id) {
    if (std::find(forbidden.begin(), forbidden.end(), id) == forbidden.end()) return id;
  }
  return 0;
}

bool AnyFinite(absl::Span<const float> logits) {
  return std::any_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); });
}

}  // namespace

void Sampler::Reserve(size_t vocab_size) {
  logits_.reserve(vocab_size);
  candidates_.reserve(vocab_size);
  ranked_.reserve(vocab_size);
}

SampledRow Sampler::Sample(absl::Span<const float> logits, const SampleRow& row) {
  SampledRow sampled = {};
  sampled.id = DrawToken(logits, row);
  sampled.finite = AnyFinite(logits) ? 1 : 0;
  if (row.top_logprobs.has_value()) AddLogProbs(logits, *row.top_logprobs, sampled);
  return sampled;
}

int32_t Sampler::DrawToken(absl::Span<const float> raw, const SampleRow& row) {
  Adjust(raw, row);
  const auto highest = std::max_element(logits_.begin(), logits_.end());
  if (*highest == -kInfinity) return LowestAllowed(row.forbidden, raw.size());
  if (row.params->temperature == 0) return static_cast<int32_t>(highest - logits_.begin());
  Collect(logits_);
  Filter(*row.params, *highest);
  return Draw(UniformAt(row.params->seed, row.position));
}

bool Sampler::Before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

void Sampler::Adjust(absl::Span<const float> raw, const SampleRow& row) {
  const SamplingParams& params = *row.params;
  logits_.resize(raw.size());
  std::transform(raw.begin(), raw.end(), logits_.begin(), Cleaned);
  if (params.penalizes()) {
    for (const auto& [id, count] : row.counts) {
      if (!InVocabulary(id, raw.size())) continue;
      float& logit = logits_[static_cast<size_t>(id)];
      logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
      logit -= params.presence_penalty + params.frequency_penalty * static_cast<float>(count);
      logit = Cleaned(logit);
    }
  }
  for (const auto& [id, bias] : params.logit_bias) {
    float& logit = logits_[static_cast<size_t>(id)];
    logit = Cleaned(logit + bias);
  }
  for (const int32_t id : row.forbidden) {
    if (InVocabulary(id, raw.size())) logits_[static_cast<size_t>(id)] = -kInfinity;
  }
}

void Sampler::Collect(absl::Span<const float> logits) {
  candidates_.resize(logits.size());
  size_t count = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const float logit = Cleaned(logits[i]);
    candidates_[count] = {static_cast<int32_t>(i), logit, 0};
    if (logit > -kInfinity) ++count;
  }
  candidates_.resize(count);
}

void Sampler::Filter(const SamplingParams& params, float highest) {
  if (params.top_k > 0) KeepTopK(static_cast<size_t>(params.top_k));
  Weigh(highest, params.temperature);
  if (params.top_p < 1) KeepTopP(params.top_p);
  if (params.min_p == 0) return;
  // The highest weight is 1.
  std::erase_if(candidates_, [&](const Candidate& c) { return c.weight < params.min_p; });
}

void Sampler::KeepTopK(size_t k) {
  if (k >= candidates_.size()) return;
  // A heap of k is the faster way for a small k, and the slower for a large one.
  if (k <= candidates_.size() / 64) {
    ranked_.resize(k);
    std::partial_sort_copy(candidates_.begin(), candidates_.end(), ranked_.begin(), ranked_.end(),
                           Before);
  } else {
    ranked_ = candidates_;
    std::nth_element(ranked_.begin(), ranked_.begin() + static_cast<ptrdiff_t>(k - 1),
                     ranked_.end(), Before);
  }
  KeepUpTo(ranked_[k - 1]);
}

void Sampler::Weigh(float highest, float temperature) {
  for (Candidate& c : candidates_) c.weight = std::exp((c.logit - highest) / temperature);
}

void Sampler::KeepTopP(double top_p) {
  const double total = TotalWeight();
  // Tokens lighter than this hold less than 1 − top_p together, so none of them is needed.
  const double negligible = (1 - top_p) * total / static_cast<double>(candidates_.size());
  ranked_.clear();
  std::copy_if(candidates_.begin(), candidates_.end(), std::back_inserter(ranked_),
               [&](const Candidate& c) { return c.weight >= negligible; });
  // Halves [begin, end), which holds the rank of the last token that stays: the ranks before
  // `begin` weigh `held`, less than the share asked for.
  auto begin = ranked_.begin();
  auto end = ranked_.end();
  double held = 0;
  while (end - begin > 1) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, Before);
    double weight = 0;
    for (auto it = begin; it != middle; ++it) weight += it->weight;
    if (held + weight >= top_p * total) {
      end = middle;
    } else {
      held += weight;
      begin = middle;
    }
  }
  KeepUpTo(*begin);
}

void Sampler::KeepUpTo(const Candidate& last) {
  std::erase_if(candidates_, [&](const Candidate& c) { return Before(last, c); });
}

double Sampler::TotalWeight() const {
  double total = 0;
  for (const Candidate& c : candidates_) total += c.weight;
  return total;
}

int32_t Sampler::Draw(double uniform) const {
  const double target = uniform * TotalWeight();
  double cumulative = 0;
  for (const Candidate& c : candidates_) {
    cumulative += c.weight;
    if (target < cumulative) return c.id;
  }
  return candidates_.back().id;
}

void Sampler::AddLogProbs(absl::Span<const float> raw, int num_top, SampledRow& sampled) {
  Collect(raw);
  if (candidates_.empty()) {
    sampled.logprob = std::numeric_limits<float>::quiet_NaN();
    return;
  }
  const size_t num_asked = static_cast<size_t>(std::clamp(num_top, 0, kMaxTopLogProbs));
  ranked_.resize(std::min(std::max<size_t>(num_asked, 1), candidates_.size()));
  std::partial_sort_copy(candidates_.begin(), candidates_.end(), ranked_.begin(), ranked_.end(),
                         Before);
  const float highest = ranked_.front().logit;
  Weigh(highest, 1);
  const double log_total = highest + std::log(TotalWeight());
  const auto logprob = [&](float logit) { return static_cast<float>(logit - log_total); };
  sampled.logprob = logprob(Cleaned(raw[static_cast<size_t>(sampled.id)]));
  ranked_.resize(std::min(num_asked, ranked_.size()));
  sampled.num_top = static_cast<int32_t>(ranked_.size());
  std::transform(ranked_.begin(), ranked_.end(), sampled.top.begin(), [&](const Candidate& c) {
    return TokenLogProb{c.id, logprob(c.logit)};
  });
}

}  // namespace mneme
