#include "engine/sampling/sampler.h"

#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"

namespace mneme {
namespace {

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

void TokenCounts::Add(int32_t id) {
  const auto [place, is_new] = places_.try_emplace(id, counts_.size());
  if (is_new) counts_.push_back({id, 0});
  ++counts_[place->second].count;
}

}  // namespace mneme
