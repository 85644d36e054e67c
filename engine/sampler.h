#ifndef MNEME_ENGINE_SAMPLER_H_
#define MNEME_ENGINE_SAMPLER_H_

// Draws tokens from logits. A draw is a function of its arguments alone: its random number comes
// from a counter, (seed, position), so a session's text depends neither on its neighbours nor on
// what was sampled before, and a replay draws the same tokens.

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/sampling_params.h"

namespace mneme {

// INVALID_ARGUMENT that names the field, its value and its range unless temperature is in [0, 100],
// top_p in (0, 1], min_p in [0, 1], top_k ≥ 0, repetition_penalty > 0 and finite, presence_penalty
// and frequency_penalty in [−2, 2], and every bias finite with its id in [0, vocab_size).
absl::Status ValidateSamplingParams(const SamplingParams& params, int64_t vocab_size);

// How often each token stands in a request's input and output: what the penalties look at. Holds
// the tokens that occur, not the vocabulary. Not thread-safe.
class TokenCounts {
 public:
  void Add(int32_t id) { ++counts_[id]; }
  const absl::flat_hash_map<int32_t, int64_t>& counts() const { return counts_; }  // all ≥ 1

 private:
  absl::flat_hash_map<int32_t, int64_t> counts_;
};

struct SampledToken {
  int32_t id = 0;
  std::optional<float> logprob;   // ln softmax of the raw logits; present if asked for
  std::vector<TokenLogProb> top;  // most probable by the raw logits, best first
};

// The block function of Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as
// 1, 2, 3", 2011).
std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// The random number of a position: uniform on the multiples of 2⁻⁵³ in [0, 1). The seed is the key
// of Philox4x32-10 and the position its counter. Philox because it is made for counters: a
// published cipher that passes BigCrush for neighbouring keys and counters alike, has known-answer
// vectors, and costs the same 32-bit multiplications on a GPU, so that sampling there draws the
// same tokens.
double UniformAt(uint64_t seed, uint64_t position);

// Owns the scratch memory of one thread's draws, which grows to the vocabulary once; results do not
// depend on earlier calls.
class Sampler {
 public:
  // Draws the token at `position` from `logits` [vocab]; `params` have passed
  // ValidateSamplingParams and `logits` is not empty. In this order:
  //   repetition penalty  a counted token's logit is divided by it if positive, else multiplied
  //   presence, frequency presence + frequency · count is subtracted from a counted token's logit
  //   bias                is added
  //   forbidden           these tokens (stop tokens before min_tokens) cannot be drawn
  //   temperature         0: the highest logit is the result; else logits are divided by it
  //   top_k               the k highest logits stay
  //   top_p               the smallest set stays that holds a share ≥ top_p of what top_k left
  //   min_p               tokens stay whose probability is ≥ min_p times the highest one
  //   draw                by probability among those that stay
  // Equal logits rank by lower id first, everywhere. Counted or forbidden ids outside the
  // vocabulary are ignored. NaN counts as −∞, which is never drawn; +∞ as the largest float. If no
  // token that may be drawn is left, the lowest id that is not forbidden is returned (0 if all
  // are): the engine refuses such logits before it samples.
  //
  // `top_logprobs`: absent, no logprob is computed; else how many entries `top` shall have. It has
  // fewer if fewer tokens have a finite raw logit. `logprob` is NaN if no raw logit is finite.
  SampledToken Sample(absl::Span<const float> logits, const SamplingParams& params,
                      const TokenCounts& counts, uint64_t position,
                      absl::Span<const int32_t> forbidden, std::optional<int> top_logprobs);

 private:
  struct Candidate {
    int32_t id;
    float logit;   // never NaN or infinite
    float weight;  // e^((logit − highest logit) / temperature), in [0, 1]
  };

  static bool Before(const Candidate& a, const Candidate& b);

  // Sets logits_ to what penalties, bias and `forbidden` make of the raw logits.
  void Adjust(absl::Span<const float> raw, const SamplingParams& params, const TokenCounts& counts,
              absl::Span<const int32_t> forbidden);
  // Sets candidates_ to the tokens of finite logit, in order of id.
  void Collect(absl::Span<const float> logits);
  // Drops candidates by top_k, top_p and min_p, and weighs those that stay.
  void Filter(const SamplingParams& params, float highest);
  void KeepTopK(size_t k);
  void Weigh(float highest, float temperature);
  void KeepTopP(double top_p);
  void KeepUpTo(const Candidate& last);
  double TotalWeight() const;
  int32_t Draw(double uniform) const;
  void AddLogProbs(absl::Span<const float> raw, int num_top, SampledToken* token);

  std::vector<float> logits_;          // [vocab]
  std::vector<Candidate> candidates_;  // in order of id
  std::vector<Candidate> ranked_;      // scratch of one filter
};

}  // namespace mneme

#endif  // MNEME_ENGINE_SAMPLER_H_
