#ifndef MNEME_ENGINE_SAMPLING_SAMPLER_H_
#define MNEME_ENGINE_SAMPLING_SAMPLER_H_

// What a request says and knows about how its tokens are drawn; kernels/sampling.h has the rule.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/sampling.h"

namespace mneme {

// INVALID_ARGUMENT that names the field, its value and its range unless temperature is in [0, 100],
// top_p in (0, 1], min_p in [0, 1], top_k ≥ 0, repetition_penalty > 0 and finite, presence_penalty
// and frequency_penalty in [−2, 2], and every bias finite with its id in [0, vocab_size).
absl::Status ValidateSamplingParams(const SamplingParams& params, int64_t vocab_size);

// How often each token stands in a request's input and output: what the penalties look at. Holds
// the tokens that occur, not the vocabulary. Not thread-safe.
class TokenCounts {
 public:
  void Add(int32_t id);
  // Each id once, in the order in which they first came; valid until the next Add.
  absl::Span<const TokenCount> counts() const { return counts_; }

 private:
  std::vector<TokenCount> counts_;
  absl::flat_hash_map<int32_t, size_t> places_;  // index in counts_ of each id
};

}  // namespace mneme

#endif  // MNEME_ENGINE_SAMPLING_SAMPLER_H_
