#ifndef MNEME_SERVER_MODEL_LOADER_H_
#define MNEME_SERVER_MODEL_LOADER_H_

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/tokenizer/turn_encoder.h"
#include "kernels/backend.h"
#include "server/logging.h"
#include "server/model_description.h"

namespace mneme {

struct ModelOptions {
  std::filesystem::path dir;
  int64_t sliding_window = 0;  // of every layer, in tokens; 0: as the model says
  std::string turn_format;     // name or file; empty: by the tokenizer
};

// Random weights of a published shape.
struct RandomModelOptions {
  std::string shape;  // see NamedShape
  uint64_t seed = 0;
  int64_t chunk = 0;           // 0: as the shape has it
  int64_t sliding_window = 0;  // as in ModelOptions
};

// A model ready to serve, and what is said about it.
struct LoadedModel {
  ServedModel model;
  std::optional<TurnEncoder> turns;  // with a tokenizer, which is the model's
  ModelDescription description;
};

// Reads a model directory and puts the weights on `backend`, with progress in the log. Any status
// of the parts, for a directory that is missing or broken.
absl::StatusOr<LoadedModel> LoadModel(const ModelOptions& options, Backend& backend,
                                      const Logger& logger);

// Makes such a model, named like its shape and without a tokenizer, on `backend`. INVALID_ARGUMENT
// for an unknown shape, RESOURCE_EXHAUSTED if it does not fit.
absl::StatusOr<LoadedModel> MakeRandomModel(const RandomModelOptions& options, Backend& backend,
                                            const Logger& logger);

}  // namespace mneme

#endif  // MNEME_SERVER_MODEL_LOADER_H_
