#ifndef MNEME_TESTS_ENGINE_LOADING_TINY_MODEL_H_
#define MNEME_TESTS_ENGINE_LOADING_TINY_MODEL_H_

#include <filesystem>
#include <map>
#include <string>

#include "base/dtype.h"
#include "nlohmann/json.hpp"
#include "tests/engine/loading/safetensors_writer.h"

namespace mneme {

// A complete small model whose parts a test may change before it is written: Qwen3, two layers of
// d = 8 and f = 12, two query heads and one key head of 4, 16 tokens; layer 1 learns in chunks
// of 4.
struct TinyModel {
  // Random tensors of `dtype`, the same in every run.
  explicit TinyModel(DType dtype = DType::kF32);

  // Writes config.json and model.safetensors.
  void Write(const std::filesystem::path& model_dir) const;

  nlohmann::json config;
  std::map<std::string, TensorData> tensors;
};

}  // namespace mneme

#endif  // MNEME_TESTS_ENGINE_LOADING_TINY_MODEL_H_
