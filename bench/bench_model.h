#ifndef MNEME_BENCH_BENCH_MODEL_H_
#define MNEME_BENCH_BENCH_MODEL_H_

#include <string>

#include "absl/status/statusor.h"
#include "bench/options.h"
#include "engine/loading/config.h"
#include "engine/loading/weights.h"
#include "kernels/backend.h"

namespace mneme {

struct BenchModel {
  std::string name;
  ModelConfig config;
  ModelWeights weights;
};

// The configuration of the model that `options` name, with the chunk size that they ask for.
absl::StatusOr<ModelConfig> BenchModelConfig(const BenchOptions& options);

// The model that `options` name, packed for `backend`, with the chunk size that they ask for.
// INVALID_ARGUMENT for a chunk size of a model that does not learn, or a session longer than the
// model's context; otherwise as LoadWeights and NamedShape.
absl::StatusOr<BenchModel> LoadBenchModel(const BenchOptions& options, Backend& backend);

}  // namespace mneme

#endif  // MNEME_BENCH_BENCH_MODEL_H_
