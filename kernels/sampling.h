#ifndef MNEME_KERNELS_SAMPLING_H_
#define MNEME_KERNELS_SAMPLING_H_

// How tokens are drawn from logits: the rule that every backend follows.
//
// A draw is a function of its arguments alone: its random number comes from a counter, (seed,
// position), so a session's text depends neither on its neighbours nor on what was sampled before,
// and a replay draws the same tokens.

#include <array>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/types/span.h"

namespace mneme {

// How the next token is drawn. In this order: penalties (over the request's input and output),
// bias, temperature, top_k, top_p, min_p. The defaults change nothing.
struct SamplingParams {
  float temperature = 1;         // 0: greedy
  float top_p = 1;               // (0, 1]
  float min_p = 0;               // [0, 1], relative to the most probable token
  int32_t top_k = 0;             // 0: off
  float repetition_penalty = 1;  // > 0; Hugging Face's rule
  float presence_penalty = 0;
  float frequency_penalty = 0;
  uint64_t seed = 0;
  std::vector<std::pair<int32_t, float>> logit_bias;  // token id, added to its logit

  bool penalizes() const {
    return repetition_penalty != 1 || presence_penalty != 0 || frequency_penalty != 0;
  }
};

// How often a token stands in a request's input and output: what the penalties look at.
struct TokenCount {
  int32_t id = 0;
  int32_t count = 0;  // at least 1
};

// One draw, from one row of logits. In this order:
//   repetition penalty  a counted token's logit is divided by it if positive, else multiplied
//   presence, frequency presence + frequency · count is subtracted from a counted token's logit
//   bias                is added
//   forbidden           these tokens (stop tokens before min_tokens) cannot be drawn
//   temperature         0: the highest logit is the result; else logits are divided by it
//   top_k               the k highest logits stay
//   top_p               the smallest set stays that holds a share ≥ top_p of what top_k left
//   min_p               tokens stay whose probability is ≥ min_p times the highest one
//   draw                by probability among those that stay, in the order of their ids: the first
//                       whose cumulative weight is above UniformAt(seed, position) of the total
// Equal logits rank by lower id first, everywhere. Counted or forbidden ids outside the vocabulary
// are ignored. NaN counts as −∞, which is never drawn; +∞ as the largest float. If no token that
// may be drawn is left, the lowest id that is not forbidden is returned (0 if all are).
struct SampleRow {
  const SamplingParams* params = nullptr;  // valid, in the engine's sense
  uint64_t position = 0;                   // of the token that is drawn
  absl::Span<const TokenCount> counts;     // each id once
  absl::Span<const int32_t> forbidden;
  std::optional<int> top_logprobs;  // at most kMaxTopLogProbs; absent: no log-probability at all
};

inline constexpr int kMaxTopLogProbs = 20;

// A token and its natural-log probability.
struct TokenLogProb {
  int32_t id = 0;
  float logprob = 0;
};

// What was drawn; plain memory that is copied from a device.
struct SampledRow {
  int32_t id = 0;
  int32_t finite = 0;   // 0: no raw logit is finite, so that `id` means nothing
  float logprob = 0;    // ln softmax of the raw logits, if asked for; NaN if none is finite
  int32_t num_top = 0;  // as many as asked for and as have a finite raw logit
  std::array<TokenLogProb, kMaxTopLogProbs> top;  // most probable by the raw logits, best first
};

// The block function of Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as
// 1, 2, 3", 2011).
std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// The random number of a position: uniform on the multiples of 2⁻⁵³ in [0, 1). The seed is the key
// of Philox4x32-10 and the position its counter. Philox because it is made for counters: a
// published cipher that passes BigCrush for neighbouring keys and counters alike, has known-answer
// vectors, and costs the same 32-bit multiplications on a GPU.
double UniformAt(uint64_t seed, uint64_t position);

}  // namespace mneme

#endif  // MNEME_KERNELS_SAMPLING_H_
