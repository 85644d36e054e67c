#ifndef MNEME_ENGINE_SAMPLING_PARAMS_H_
#define MNEME_ENGINE_SAMPLING_PARAMS_H_

#include <cstdint>
#include <utility>
#include <vector>

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
};

// A token and its natural-log probability.
struct TokenLogProb {
  int32_t id = 0;
  float logprob = 0;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_SAMPLING_PARAMS_H_
