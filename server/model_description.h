#ifndef MNEME_SERVER_MODEL_DESCRIPTION_H_
#define MNEME_SERVER_MODEL_DESCRIPTION_H_

#include <cstdint>
#include <string>

#include "engine/loading/config.h"

namespace mneme {

// What GetModelInfo and sessions say about the model; fixed once it is loaded.
struct ModelDescription {
  std::string name;         // of its directory
  std::string fingerprint;  // of config.json, weights and window: hexadecimal
  std::string dtype;        // "float32" or "bfloat16": what its matrices are multiplied in
  std::string turn_format;  // empty without a tokenizer
  int64_t parameter_count = 0;
  int64_t weight_bytes = 0;  // on the device
  ModelConfig config;
  GenerationDefaults defaults;
  bool has_tokenizer = false;
};

}  // namespace mneme

#endif  // MNEME_SERVER_MODEL_DESCRIPTION_H_
