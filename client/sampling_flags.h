#ifndef MNEME_CLIENT_SAMPLING_FLAGS_H_
#define MNEME_CLIENT_SAMPLING_FLAGS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace CLI {  // NOLINT(readability-identifier-naming): the library's name
class App;
}

namespace mneme {

namespace v1 {
class GenerateRequest;
}

// The flags that say how to generate, for every command that does. What is absent the server
// chooses.
struct SamplingFlags {
  std::optional<float> temperature, top_p, min_p;
  std::optional<float> repetition_penalty, presence_penalty, frequency_penalty;
  std::optional<uint32_t> top_k, max_tokens, min_tokens;
  std::optional<uint64_t> seed;
  std::vector<std::string> logit_bias;  // "ID=BIAS"
  std::vector<std::string> stop;
  std::vector<uint32_t> stop_token_ids;
  bool ignore_eos = false;
};

// `flags` is borrowed until the line has been parsed.
void AddSamplingFlags(CLI::App& command, SamplingFlags& flags);

// Writes the flags into the request. INVALID_ARGUMENT: a bias that is not ID=BIAS.
absl::Status FillSampling(const SamplingFlags& flags, v1::GenerateRequest& request);

}  // namespace mneme

#endif  // MNEME_CLIENT_SAMPLING_FLAGS_H_
