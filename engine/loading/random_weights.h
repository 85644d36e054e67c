#ifndef MNEME_ENGINE_LOADING_RANDOM_WEIGHTS_H_
#define MNEME_ENGINE_LOADING_RANDOM_WEIGHTS_H_

// Models of a published shape with random parameters, for measurements: every matrix product has
// its true size, and what is generated means nothing.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/loading/config.h"
#include "engine/loading/tensor_source.h"

namespace mneme {

// The shape "qwen3-0.6b", "qwen3-4b", "qwen3-8b" or "llama-3.1-8b", with In-Place TTT at its
// default settings (change `ttt` to measure others) and no end-of-text token. INVALID_ARGUMENT,
// with the names, for any other.
absl::StatusOr<ModelConfig> NamedShape(absl::string_view name);

// Generates each tensor when it is first asked for, as bfloat16: a function of seed, name and shape
// alone. Matrices are drawn with variance 1 / columns, so that activations keep their scale; norms
// are 1; the conv passes a small part of its centre, so that updates stay below W_down's scale over
// long inputs.
class RandomTensors final : public TensorSource {
 public:
  explicit RandomTensors(uint64_t seed) : seed_(seed) {}

  absl::StatusOr<HostTensor> Find(const std::string& name, int64_t rows,
                                  int64_t cols) const override;

 private:
  uint64_t seed_;
  mutable std::map<std::string, std::vector<uint16_t>> tensors_;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_LOADING_RANDOM_WEIGHTS_H_
