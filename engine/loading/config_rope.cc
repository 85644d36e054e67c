#include "engine/loading/config_rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace mneme {
namespace {

constexpr double kMinTheta = 1.0001;  // yarn divides by its logarithm
constexpr double kMaxTheta = 1e18;
constexpr double kMaxFactor = 1e6;
constexpr double kSmallest = 1e-6;
constexpr int64_t kMaxPositions = INT32_MAX;

absl::StatusOr<RopeKind> ParseKind(const std::string& name) {
  if (name == "default") return RopeKind::kDefault;
  if (name == "linear") return RopeKind::kLinear;
  if (name == "llama3") return RopeKind::kLlama3;
  if (name == "yarn") return RopeKind::kYarn;
  return absl::UnimplementedError(absl::StrCat(
      "rope_type \"", name, "\" is not supported; default, linear, llama3 and yarn are"));
}

// How yarn corrects the attention for a context that is `scale` times as long.
double YarnScale(double scale, double mscale) {
  return scale <= 1 ? 1.0 : 0.1 * mscale * std::log(scale) + 1.0;
}

void ReadLlama3(ConfigJson& json, RopeConfig& rope) {
  rope.low_freq_factor = json.Number("low_freq_factor", kSmallest, kMaxFactor);
  rope.high_freq_factor = json.Number("high_freq_factor", kSmallest, kMaxFactor);
  rope.original_max_position_embeddings =
      json.Integer("original_max_position_embeddings", 1, kMaxPositions);
  if (json.status().ok() && rope.high_freq_factor <= rope.low_freq_factor) {
    json.Fail(absl::InvalidArgumentError(
        absl::StrCat("\"high_freq_factor\" ", rope.high_freq_factor,
                     " must exceed \"low_freq_factor\" ", rope.low_freq_factor)));
  }
}

void ReadYarn(ConfigJson& json, RopeConfig& rope) {
  rope.beta_fast = json.Number("beta_fast", kSmallest, kMaxFactor, rope.beta_fast);
  rope.beta_slow = json.Number("beta_slow", kSmallest, kMaxFactor, rope.beta_slow);
  rope.original_max_position_embeddings =
      json.Integer("original_max_position_embeddings", 1, kMaxPositions, 0);
  rope.truncate = json.Bool("truncate", rope.truncate);
  const double mscale = json.Number("mscale", 0, kMaxFactor, 0);
  const double mscale_all_dim = json.Number("mscale_all_dim", 0, kMaxFactor, 0);
  if (json.Has("attention_factor")) {
    rope.attention_factor = json.Number("attention_factor", kSmallest, kMaxFactor);
  } else if (mscale > 0 && mscale_all_dim > 0) {
    rope.attention_factor = YarnScale(rope.factor, mscale) / YarnScale(rope.factor, mscale_all_dim);
  }
  if (json.status().ok() && rope.beta_fast < rope.beta_slow) {
    json.Fail(absl::InvalidArgumentError(absl::StrCat(
        "\"beta_fast\" ", rope.beta_fast, " must not be below \"beta_slow\" ", rope.beta_slow)));
  }
}

// The pair index, fractional, whose wave turns `rotations` times within `positions`.
double YarnCorrectionIndex(double rotations, double head_dim, double theta, double positions) {
  return head_dim * std::log(positions / (rotations * 2 * std::numbers::pi)) /
         (2 * std::log(theta));
}

void ScaleLlama3(const RopeConfig& rope, std::vector<double>& frequencies) {
  const double original = static_cast<double>(rope.original_max_position_embeddings);
  for (double& frequency : frequencies) {
    const double rotations = original * frequency / (2 * std::numbers::pi);
    const double smooth = std::clamp(
        (rotations - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor), 0.0,
        1.0);
    frequency *= (1 - smooth) / rope.factor + smooth;
  }
}

void ScaleYarn(const RopeConfig& rope, int64_t head_dim, int64_t max_position_embeddings,
               std::vector<double>& frequencies) {
  const double dim = static_cast<double>(head_dim);
  const double original = static_cast<double>(rope.original_max_position_embeddings > 0
                                                  ? rope.original_max_position_embeddings
                                                  : max_position_embeddings);
  double low = YarnCorrectionIndex(rope.beta_fast, dim, rope.theta, original);
  double high = YarnCorrectionIndex(rope.beta_slow, dim, rope.theta, original);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double interpolated = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequencies[i] *= interpolated / rope.factor + (1 - interpolated);
  }
}

}  // namespace

absl::StatusOr<RopeConfig> ParseRopeConfig(ConfigJson& config) {
  ConfigJson json =
      config.Object(config.Has("rope_parameters") ? "rope_parameters" : "rope_scaling");
  for (const char* nested : {"full_attention", "sliding_attention"}) {
    if (json.Has(nested)) {
      return absl::UnimplementedError("\"rope_parameters\" per layer type are not supported");
    }
  }
  RopeConfig rope;
  const std::string kind = json.String("rope_type", json.String("type", "default"));
  MNEME_RETURN_IF_ERROR(json.status());
  MNEME_ASSIGN_OR_RETURN(rope.kind, ParseKind(kind));
  ConfigJson& theta_holder = json.Has("rope_theta") ? json : config;
  rope.theta = theta_holder.Number("rope_theta", kMinTheta, kMaxTheta, rope.theta);
  for (ConfigJson* holder : {&json, &config}) {
    if (holder->Number("partial_rotary_factor", 0, 1, 1) != 1) {
      return absl::UnimplementedError("\"partial_rotary_factor\" other than 1 is not supported");
    }
  }
  if (rope.kind != RopeKind::kDefault) rope.factor = json.Number("factor", 1, kMaxFactor);
  if (rope.kind == RopeKind::kLlama3) ReadLlama3(json, rope);
  if (rope.kind == RopeKind::kYarn) ReadYarn(json, rope);
  MNEME_RETURN_IF_ERROR(json.status());
  return rope;
}

RopeTables MakeRopeTables(const RopeConfig& rope, int64_t head_dim,
                          int64_t max_position_embeddings) {
  RopeTables tables;
  tables.inverse_frequencies.resize(static_cast<size_t>(head_dim / 2));
  for (size_t i = 0; i < tables.inverse_frequencies.size(); ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(head_dim);
    tables.inverse_frequencies[i] = std::pow(rope.theta, -exponent);
    if (rope.kind == RopeKind::kLinear) tables.inverse_frequencies[i] /= rope.factor;
  }
  if (rope.kind == RopeKind::kLlama3) ScaleLlama3(rope, tables.inverse_frequencies);
  if (rope.kind == RopeKind::kYarn) {
    ScaleYarn(rope, head_dim, max_position_embeddings, tables.inverse_frequencies);
    tables.attention_factor = rope.attention_factor.value_or(YarnScale(rope.factor, 1));
  }
  return tables;
}

}  // namespace mneme
