#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace mneme {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();

// Comparisons are written so that NaN fails them.
absl::Status CheckFromTo(absl::string_view name, float value, float low, float high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name, " is ", value, "; it must be a number from ", low, " to ", high, "."));
}

absl::Status CheckAboveZero(absl::string_view name, float value, float high) {
  if (value > 0 && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name, " is ", value, "; it must be a number above 0 and at most ", high, "."));
}

absl::Status CheckBias(int32_t id, float bias, int64_t vocab_size) {
  if (id < 0 || id >= vocab_size) {
    return absl::InvalidArgumentError(absl::StrCat(
        "logit_bias names token ", id, "; the vocabulary has ids from 0 to ", vocab_size - 1, "."));
  }
  if (!std::isfinite(bias)) {
    return absl::InvalidArgumentError(
        absl::StrCat("logit_bias of token ", id, " is ", bias, "; it must be a finite number."));
  }
  return absl::OkStatus();
}

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

}  // namespace

absl::Status ValidateSamplingParams(const SamplingParams& params, int64_t vocab_size) {
  MNEME_RETURN_IF_ERROR(CheckFromTo("temperature", params.temperature, 0, 100));
  MNEME_RETURN_IF_ERROR(CheckAboveZero("top_p", params.top_p, 1));
  MNEME_RETURN_IF_ERROR(CheckFromTo("min_p", params.min_p, 0, 1));
  if (params.top_k < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("top_k is ", params.top_k, "; it must be 0 (off) or above."));
  }
  MNEME_RETURN_IF_ERROR(CheckAboveZero("repetition_penalty", params.repetition_penalty, kLargest));
  MNEME_RETURN_IF_ERROR(CheckFromTo("presence_penalty", params.presence_penalty, -2, 2));
  MNEME_RETURN_IF_ERROR(CheckFromTo("frequency_penalty", params.frequency_penalty, -2, 2));
  for (const auto& [id, bias] : params.logit_bias) {
    MNEME_RETURN_IF_ERROR(CheckBias(id, bias, vocab_size));
  }
  return absl::OkStatus();
}

std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

double UniformAt(uint64_t seed, uint64_t position) {
  const auto low = [](uint64_t value) { return static_cast<uint32_t>(value); };
  const auto high = [](uint64_t value) { return static_cast<uint32_t>(value >> 32); };
  const std::array<uint32_t, 4> block =
      Philox4x32({low(position), high(position), 0, 0}, {low(seed), high(seed)});
  const uint64_t bits = uint64_t{block[1]} << 32 | block[0];
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

SampledToken Sampler::Sample(absl::Span<const float> logits, const SamplingParams& params,
                             const TokenCounts& counts, uint64_t position,
                             absl::Span<const int32_t> forbidden, std::optional<int> top_logprobs) {
  MNEME_CHECK(!logits.empty());
  Adjust(logits, params, counts, forbidden);
  const auto highest = std::max_element(logits_.begin(), logits_.end());
  SampledToken token;
  if (*highest == -kInfinity) {
    token.id = LowestAllowed(forbidden, logits.size());
  } else if (params.temperature == 0) {
    token.id = static_cast<int32_t>(highest - logits_.begin());
  } else {
    Collect(logits_);
    Filter(params, *highest);
    token.id = Draw(UniformAt(params.seed, position));
  }
  if (top_logprobs.has_value()) AddLogProbs(logits, *top_logprobs, &token);
  return token;
}

bool Sampler::Before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

void Sampler::Adjust(absl::Span<const float> raw, const SamplingParams& params,
                     const TokenCounts& counts, absl::Span<const int32_t> forbidden) {
  logits_.resize(raw.size());
  std::transform(raw.begin(), raw.end(), logits_.begin(), Cleaned);
  const bool penalized = params.repetition_penalty != 1 || params.presence_penalty != 0 ||
                         params.frequency_penalty != 0;
  if (penalized) {
    for (const auto& [id, count] : counts.counts()) {
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
  for (const int32_t id : forbidden) {
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

void Sampler::AddLogProbs(absl::Span<const float> raw, int num_top, SampledToken* token) {
  Collect(raw);
  if (candidates_.empty()) {
    token->logprob = std::numeric_limits<float>::quiet_NaN();
    return;
  }
  ranked_.resize(std::min(static_cast<size_t>(std::max(num_top, 1)), candidates_.size()));
  std::partial_sort_copy(candidates_.begin(), candidates_.end(), ranked_.begin(), ranked_.end(),
                         Before);
  const float highest = ranked_.front().logit;
  Weigh(highest, 1);
  const double log_total = highest + std::log(TotalWeight());
  const auto logprob = [&](float logit) { return static_cast<float>(logit - log_total); };
  token->logprob = logprob(Cleaned(raw[static_cast<size_t>(token->id)]));
  if (num_top <= 0) return;
  for (const Candidate& c : ranked_) token->top.push_back({c.id, logprob(c.logit)});
}

}  // namespace mneme
