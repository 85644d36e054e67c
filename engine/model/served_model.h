#ifndef MNEME_ENGINE_MODEL_SERVED_MODEL_H_
#define MNEME_ENGINE_MODEL_SERVED_MODEL_H_

#include <cstdint>
#include <memory>

#include "engine/loading/config.h"
#include "engine/loading/weights.h"
#include "engine/tokenizer/tokenizer.h"

namespace mneme {

// A model ready to serve. `tokenizer` may be null: then text and stop strings are refused.
struct ServedModel {
  ModelConfig config;
  GenerationDefaults defaults;
  ModelWeights weights;
  std::shared_ptr<const Tokenizer> tokenizer;
  // Of all that a computed state is a function of besides the session's log: the weights, and how
  // the backend computes. Checkpoints of another are not restored from.
  uint64_t fingerprint = 0;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_MODEL_SERVED_MODEL_H_
