#include "server/model_loader.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "engine/loading/config.h"
#include "engine/loading/random_weights.h"
#include "engine/loading/safetensors_checkpoint.h"
#include "engine/loading/weights.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/turn_format.h"
#include "server/model_identity.h"

namespace mneme {
namespace {

constexpr absl::Duration kProgressInterval = absl::Seconds(2);

std::string NameOf(const std::filesystem::path& dir) {
  const auto normal = std::filesystem::absolute(dir).lexically_normal();
  return normal.has_filename() ? normal.filename() : normal.parent_path().filename();
}

// Null if the model has none.
absl::StatusOr<std::shared_ptr<const Tokenizer>> LoadTokenizer(const ModelOptions& options) {
  auto tokenizer = Tokenizer::Load(options.dir);
  if (tokenizer.ok()) return std::shared_ptr<const Tokenizer>(*std::move(tokenizer));
  if (!absl::IsNotFound(tokenizer.status())) return tokenizer.status();
  if (options.turn_format.empty()) return std::shared_ptr<const Tokenizer>();
  return absl::FailedPreconditionError("--turn_format needs a model with a tokenizer.json");
}

absl::StatusOr<TurnFormat> LoadTurnFormat(const ModelOptions& options, const Tokenizer& tokenizer) {
  if (options.turn_format.empty()) return DefaultTurnFormat(options.dir, tokenizer);
  auto named = TurnFormat::ByName(options.turn_format);
  if (named.ok() || !std::filesystem::exists(options.turn_format)) return named;
  return TurnFormat::FromFile(options.turn_format);
}

absl::Status LoadText(const ModelOptions& options, LoadedModel& loaded) {
  MNEME_ASSIGN_OR_RETURN(loaded.model.tokenizer, LoadTokenizer(options));
  const Tokenizer* const tokenizer = loaded.model.tokenizer.get();
  if (tokenizer == nullptr) return absl::OkStatus();
  if (tokenizer->vocab_size() > loaded.model.config.vocab_size) {
    return absl::InvalidArgumentError(absl::StrCat("tokenizer.json has ", tokenizer->vocab_size(),
                                                   " tokens, but the model's vocabulary only ",
                                                   loaded.model.config.vocab_size));
  }
  MNEME_ASSIGN_OR_RETURN(const TurnFormat format, LoadTurnFormat(options, *tokenizer));
  MNEME_ASSIGN_OR_RETURN(loaded.turns, TurnEncoder::Create(*tokenizer, format));
  loaded.description.has_tokenizer = true;
  loaded.description.turn_format = format.name;
  return absl::OkStatus();
}

LoadProgress LogProgress(const Logger& logger) {
  return [&logger, last = absl::Now()](int done, int total) mutable {
    const absl::Time now = absl::Now();
    if (now - last < kProgressInterval) return;
    last = now;
    logger.Info("loading weights", {{"layers", int64_t{done}}, {"of", int64_t{total}}});
  };
}

int64_t SizeOf(const std::unique_ptr<PackedMatrix>& matrix) {
  return matrix == nullptr ? 0 : matrix->size_bytes();
}

int64_t SizeOf(const LayerWeights& layer) {
  int64_t bytes = 0;
  for (const DeviceBuffer* buffer :
       {&layer.input_norm, &layer.post_norm, &layer.q_norm, &layer.k_norm, &layer.qkv_bias,
        &layer.o_bias, &layer.ttt_conv}) {
    bytes += buffer->size_bytes();
  }
  return bytes + SizeOf(layer.qkv) + SizeOf(layer.o) + SizeOf(layer.gate_up) + SizeOf(layer.down) +
         SizeOf(layer.ttt_projection);
}

int64_t SizeOf(const ModelWeights& weights) {
  int64_t bytes = weights.embedding_storage.size_bytes() + weights.final_norm.size_bytes() +
                  SizeOf(weights.lm_head);
  for (const LayerWeights& layer : weights.layers) bytes += SizeOf(layer);
  return bytes;
}

// Loads the weights of `loaded`, which has its name and configuration, and describes them.
absl::Status PutWeights(const TensorSource& source, Backend& backend, const Logger& logger,
                        LoadedModel& loaded) {
  ServedModel& model = loaded.model;
  ModelDescription& description = loaded.description;
  description.config = model.config;
  description.defaults = model.defaults;
  description.parameter_count = CountParameters(model.config);
  logger.Info("loading model", {{"model", description.name},
                                {"parameters", description.parameter_count},
                                {"learns", std::string(model.config.ttt ? "yes" : "no")}});
  const absl::Time start = absl::Now();
  MNEME_ASSIGN_OR_RETURN(model.weights,
                         LoadWeights(model.config, source, backend, LogProgress(logger)));
  description.weight_bytes = SizeOf(model.weights);
  logger.Info("weights loaded", {{"seconds", absl::ToDoubleSeconds(absl::Now() - start)}});
  return absl::OkStatus();
}

absl::Status CheckDirectory(const std::filesystem::path& dir) {
  std::error_code error;
  if (std::filesystem::is_directory(dir, error)) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat("there is no model directory ", dir.string()));
}

}  // namespace

absl::StatusOr<LoadedModel> LoadModel(const ModelOptions& options, Backend& backend,
                                      const Logger& logger) {
  MNEME_RETURN_IF_ERROR(CheckDirectory(options.dir));
  LoadedModel loaded;
  ServedModel& model = loaded.model;
  MNEME_ASSIGN_OR_RETURN(model.config, LoadModelConfig(options.dir, options.sliding_window));
  MNEME_ASSIGN_OR_RETURN(model.defaults, LoadGenerationDefaults(options.dir));
  MNEME_RETURN_IF_ERROR(LoadText(options, loaded));

  loaded.description.name = NameOf(options.dir);
  MNEME_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::Open(options.dir));
  MNEME_RETURN_IF_ERROR(PutWeights(checkpoint, backend, logger, loaded));
  MNEME_ASSIGN_OR_RETURN(loaded.description.fingerprint,
                         Fingerprint(options.dir, options.sliding_window));
  logger.Info("model loaded", {{"fingerprint", loaded.description.fingerprint},
                               {"weight_bytes", loaded.description.weight_bytes}});
  return loaded;
}

absl::StatusOr<LoadedModel> MakeRandomModel(const RandomModelOptions& options, Backend& backend,
                                            const Logger& logger) {
  LoadedModel loaded;
  MNEME_ASSIGN_OR_RETURN(loaded.model.config, NamedShape(options.shape));
  ModelConfig& config = loaded.model.config;
  if (options.chunk > 0) config.ttt->chunk = options.chunk;
  if (options.sliding_window > 0) {
    std::fill(config.windows.begin(), config.windows.end(), options.sliding_window);
  }
  loaded.description.name = options.shape;
  MNEME_RETURN_IF_ERROR(PutWeights(RandomTensors(options.seed), backend, logger, loaded));
  loaded.description.fingerprint =
      RandomFingerprint(options.shape, options.seed, config.ttt->chunk, options.sliding_window);
  logger.Info("random weights made", {{"seed", static_cast<int64_t>(options.seed)},
                                      {"weight_bytes", loaded.description.weight_bytes}});
  return loaded;
}

}  // namespace mneme
