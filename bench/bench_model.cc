#include "bench/bench_model.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/loading/random_weights.h"
#include "engine/loading/safetensors_checkpoint.h"

namespace mneme {
namespace {

constexpr int64_t kDefaultChunk = 512;  // of a named shape

absl::Status SetChunk(const BenchOptions& options, ModelConfig& config) {
  if (!config.ttt) {
    if (!options.chunk) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("a chunk size of ", *options.chunk, " was asked for, but the model in ",
                     options.model_dir.string(), " does not learn (ttt_mode)"));
  }
  const bool random = !options.random_weights.empty();
  config.ttt->chunk = options.chunk.value_or(random ? kDefaultChunk : config.ttt->chunk);
  return absl::OkStatus();
}

absl::Status CheckWorkloads(const BenchOptions& options, const ModelConfig& config) {
  const int64_t limit = config.MaxSessionTokens();
  for (const Workload& workload : options.workloads) {
    const int64_t tokens = SessionTokens(workload, options.decode_tokens);
    if (tokens <= limit) continue;
    return absl::InvalidArgumentError(absl::StrCat(NameOf(workload), " comes to ", tokens,
                                                   " tokens, but the model's context ends at ",
                                                   limit));
  }
  return absl::OkStatus();
}

absl::Status CheckLength(const BenchOptions& options, const ModelConfig& config) {
  if (options.precision) return absl::OkStatus();  // has read its text already
  if (!options.workloads.empty()) return CheckWorkloads(options, config);
  if (options.decode_begin() < options.prefill_tokens) {
    return absl::InvalidArgumentError(absl::StrCat("a context of ", options.context,
                                                   " tokens was asked for, but the prefill of ",
                                                   options.prefill_tokens, " is part of it"));
  }
  const int64_t tokens = options.decode_begin() + options.decode_tokens;
  const int64_t limit = config.MaxSessionTokens();
  if (tokens <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("a session of ", tokens,
                                                 " tokens was asked for, but the model's context "
                                                 "ends at ",
                                                 limit));
}

}  // namespace

absl::StatusOr<ModelConfig> BenchModelConfig(const BenchOptions& options) {
  MNEME_ASSIGN_OR_RETURN(ModelConfig config, options.random_weights.empty()
                                                 ? LoadModelConfig(options.model_dir)
                                                 : NamedShape(options.random_weights));
  MNEME_RETURN_IF_ERROR(SetChunk(options, config));
  return config;
}

absl::StatusOr<BenchModel> LoadBenchModel(const BenchOptions& options, Backend& backend) {
  const bool random = !options.random_weights.empty();
  BenchModel model;
  MNEME_ASSIGN_OR_RETURN(model.config, BenchModelConfig(options));
  MNEME_RETURN_IF_ERROR(CheckLength(options, model.config));
  if (random) {
    model.name = options.random_weights + ", random weights";
    MNEME_ASSIGN_OR_RETURN(model.weights,
                           LoadWeights(model.config, RandomTensors(options.seed), backend));
    return model;
  }
  model.name = options.model_dir.string();
  MNEME_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::Open(options.model_dir));
  MNEME_ASSIGN_OR_RETURN(model.weights, LoadWeights(model.config, checkpoint, backend));
  return model;
}

}  // namespace mneme
