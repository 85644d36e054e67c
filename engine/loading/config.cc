#include "engine/loading/config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/mapped_file.h"
#include "base/status_macros.h"
#include "engine/loading/config_json.h"
#include "engine/loading/config_rope.h"

namespace mneme {
namespace {

// Limits far beyond any model, within which no product of sizes overflows 64 bits.
constexpr int64_t kMaxLayers = 1000;
constexpr int64_t kMaxVocabulary = 10'000'000;
constexpr int64_t kMaxHidden = 1 << 20;
constexpr int64_t kMaxIntermediate = 1 << 22;
constexpr int64_t kMaxHeads = 1 << 16;
constexpr int64_t kMaxHeadDim = 1 << 12;
constexpr int64_t kMaxTokens = INT32_MAX;
constexpr double kMaxFloat = std::numeric_limits<float>::max();

absl::StatusOr<Architecture> ParseArchitecture(ConfigJson& json) {
  const std::vector<std::string> classes = json.Strings("architectures");
  const std::string name =
      classes.empty() ? json.String("model_type", "absent") : std::string(classes.front());
  MNEME_RETURN_IF_ERROR(json.status());
  if (name == "Qwen3ForCausalLM" || name == "qwen3") return Architecture::kQwen3;
  if (name == "LlamaForCausalLM" || name == "llama") return Architecture::kLlama;
  return absl::UnimplementedError(absl::StrCat(
      "the architecture ", name, " is not supported; Qwen3ForCausalLM and LlamaForCausalLM are"));
}

// What would change the computation and is not implemented.
absl::Status CheckSupported(ConfigJson& json) {
  for (const char* key :
       {"num_experts", "num_local_experts", "n_routed_experts", "moe_intermediate_size"}) {
    if (json.Integer(key, 0, kMaxIntermediate, 0) != 0) {
      return absl::UnimplementedError(
          absl::StrCat("\"", key, "\": mixtures of experts are not supported"));
    }
  }
  if (json.Has("quantization_config")) {
    return absl::UnimplementedError(
        "\"quantization_config\": quantised checkpoints are not supported");
  }
  if (json.Bool("mlp_bias", false)) {
    return absl::UnimplementedError("\"mlp_bias\" true is not supported");
  }
  const std::string activation = json.String("hidden_act", "silu");
  if (activation != "silu") {
    return absl::UnimplementedError(
        absl::StrCat("\"hidden_act\" ", activation, " is not supported; silu is"));
  }
  return json.status();
}

void ReadSizes(ConfigJson& json, ModelConfig& config) {
  config.vocab_size = json.Integer("vocab_size", 1, kMaxVocabulary);
  config.hidden_size = json.Integer("hidden_size", 1, kMaxHidden);
  config.intermediate_size = json.Integer("intermediate_size", 1, kMaxIntermediate);
  config.num_layers = static_cast<int>(json.Integer("num_hidden_layers", 1, kMaxLayers));
  config.num_heads = json.Integer("num_attention_heads", 1, kMaxHeads);
  config.num_kv_heads = json.Integer("num_key_value_heads", 1, kMaxHeads, config.num_heads);
  config.head_dim = json.Integer("head_dim", 2, kMaxHeadDim, config.hidden_size / config.num_heads);
  config.max_position_embeddings = json.Integer("max_position_embeddings", 1, kMaxTokens);
  config.rms_norm_eps = static_cast<float>(json.Number("rms_norm_eps", 0, 1, 1e-6));
  config.tie_word_embeddings = json.Bool("tie_word_embeddings", false);
  config.attention_bias = json.Bool("attention_bias", false);
}

absl::Status CheckHeads(ConfigJson& json, const ModelConfig& config) {
  MNEME_RETURN_IF_ERROR(json.status());
  if (config.num_heads % config.num_kv_heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"num_attention_heads\" ", config.num_heads,
                     " must be a multiple of \"num_key_value_heads\" ", config.num_kv_heads));
  }
  if (!json.Has("head_dim") && config.hidden_size % config.num_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"hidden_size\" ", config.hidden_size, " must be a multiple of \"num_attention_heads\" ",
        config.num_heads, ", or \"head_dim\" be given"));
  }
  if (config.head_dim < 2 || config.head_dim > kMaxHeadDim || config.head_dim % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"head_dim\" ", config.head_dim, " must be even, from 2 to ", kMaxHeadDim));
  }
  return absl::OkStatus();
}

void ReadTokenIds(ConfigJson& json, ModelConfig& config) {
  for (const int64_t id : json.Integers("eos_token_id", 0, kMaxTokens)) {
    config.eos_token_ids.push_back(static_cast<int32_t>(id));
  }
  if (json.Has("bos_token_id")) {
    config.bos_token_id =
        static_cast<int32_t>(json.Integer("bos_token_id", 0, config.vocab_size - 1));
  }
}

// The windows of `layer_types`.
absl::Status ReadLayerTypes(ConfigJson& json, ModelConfig& config) {
  const std::vector<std::string> types = json.Strings("layer_types");
  MNEME_RETURN_IF_ERROR(json.status());
  if (types.size() != config.windows.size()) {
    return absl::InvalidArgumentError(absl::StrCat("\"layer_types\" has ", types.size(),
                                                   " entries for ", config.num_layers, " layers"));
  }
  for (size_t i = 0; i < types.size(); ++i) {
    if (types[i] == "sliding_attention") {
      config.windows[i] = json.Integer("sliding_window", 1, kMaxTokens);
    } else if (types[i] != "full_attention") {
      return absl::UnimplementedError(absl::StrCat("\"layer_types\": ", types[i],
                                                   " is not supported; full_attention and "
                                                   "sliding_attention are"));
    }
  }
  return json.status();
}

absl::Status ReadWindows(ConfigJson& json, ModelConfig& config) {
  config.windows.assign(static_cast<size_t>(config.num_layers), 0);
  if (json.Has("layer_types")) return ReadLayerTypes(json, config);
  if (!json.Bool("use_sliding_window", false)) return json.status();
  const int64_t window = json.Integer("sliding_window", 1, kMaxTokens);
  const int64_t first = json.Integer("max_window_layers", 0, kMaxTokens, 28);
  for (int64_t i = first; i < config.num_layers; ++i) {
    config.windows[static_cast<size_t>(i)] = window;
  }
  return json.status();
}

// The layers that learn: those listed that exist, ascending, each once.
std::vector<int> ReadTttLayers(ConfigJson& json, int num_layers) {
  std::vector<int64_t> listed = {0, 6, 12, 18, 24, 30};
  if (json.Has("ttt_layers")) listed = json.Integers("ttt_layers", 0, INT64_MAX);
  std::sort(listed.begin(), listed.end());
  listed.erase(std::unique(listed.begin(), listed.end()), listed.end());
  std::vector<int> layers;
  for (const int64_t layer : listed) {
    if (layer < num_layers) layers.push_back(static_cast<int>(layer));
  }
  return layers;
}

absl::Status ReadTtt(ConfigJson& json, ModelConfig& config) {
  if (!json.Bool("ttt_mode", false)) return json.status();
  TttConfig ttt;
  ttt.layers = ReadTttLayers(json, config.num_layers);
  ttt.chunk = json.Integer("ttt_chunk", 1, kMaxTokens, ttt.chunk);
  ttt.learning_rate = static_cast<float>(json.Number("ttt_lr", 0, kMaxFloat, 0.3F));
  ttt.projection = json.Bool("ttt_proj", true);
  const std::string target = json.String("ttt_target", "hidden_states");
  if (target == "input_embed") {
    ttt.target = TttTarget::kInputEmbed;
  } else if (target != "hidden_states") {
    json.Fail(absl::InvalidArgumentError(
        absl::StrCat("\"ttt_target\" must be hidden_states or input_embed, but is ", target)));
  }
  if (!ttt.layers.empty()) config.ttt = std::move(ttt);
  return json.status();
}

absl::Status OverrideWindows(int64_t sliding_window, ModelConfig& config) {
  if (sliding_window < 0 || sliding_window > kMaxTokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("the sliding window must be from 1 to ", kMaxTokens,
                     " tokens, or 0 for the model's own, but is ", sliding_window));
  }
  if (sliding_window > 0) config.windows.assign(config.windows.size(), sliding_window);
  return absl::OkStatus();
}

// Puts the file in front of a parser's message.
absl::Status InFile(const std::filesystem::path& path, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(path.string(), ": ", status.message()));
}

}  // namespace

int64_t ModelConfig::MaxSessionTokens() const {
  const bool any_full = std::find(windows.begin(), windows.end(), 0) != windows.end();
  return any_full ? max_position_embeddings : std::numeric_limits<int64_t>::max();
}

absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view json, int64_t sliding_window) {
  MNEME_ASSIGN_OR_RETURN(ConfigJson reader, ConfigJson::Parse(json));
  ModelConfig config;
  MNEME_ASSIGN_OR_RETURN(config.architecture, ParseArchitecture(reader));
  MNEME_RETURN_IF_ERROR(CheckSupported(reader));
  ReadSizes(reader, config);
  MNEME_RETURN_IF_ERROR(CheckHeads(reader, config));
  ReadTokenIds(reader, config);
  MNEME_ASSIGN_OR_RETURN(config.rope, ParseRopeConfig(reader));
  MNEME_RETURN_IF_ERROR(ReadWindows(reader, config));
  MNEME_RETURN_IF_ERROR(OverrideWindows(sliding_window, config));
  MNEME_RETURN_IF_ERROR(ReadTtt(reader, config));
  return config;
}

absl::StatusOr<GenerationDefaults> ParseGenerationDefaults(absl::string_view json) {
  MNEME_ASSIGN_OR_RETURN(ConfigJson reader, ConfigJson::Parse(json));
  GenerationDefaults defaults;
  const auto number = [&reader](const std::string& key, double low, double high) {
    return reader.Has(key) ? std::optional(static_cast<float>(reader.Number(key, low, high)))
                           : std::nullopt;
  };
  defaults.temperature = number("temperature", 0, 1e6);
  defaults.top_p = number("top_p", 1e-9, 1);
  defaults.min_p = number("min_p", 0, 1);
  defaults.repetition_penalty = number("repetition_penalty", 1e-6, 1e6);
  if (reader.Has("top_k")) {
    defaults.top_k = static_cast<int32_t>(reader.Integer("top_k", 0, kMaxTokens));
  }
  if (!reader.Bool("do_sample", true)) defaults.temperature = 0;
  for (const int64_t id : reader.Integers("eos_token_id", 0, kMaxTokens)) {
    defaults.eos_token_ids.push_back(static_cast<int32_t>(id));
  }
  MNEME_RETURN_IF_ERROR(reader.status());
  return defaults;
}

absl::StatusOr<ModelConfig> LoadModelConfig(const std::filesystem::path& model_dir,
                                            int64_t sliding_window) {
  const std::filesystem::path path = model_dir / "config.json";
  MNEME_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  auto config = ParseModelConfig(file.text(), sliding_window);
  if (!config.ok()) return InFile(path, config.status());
  return config;
}

absl::StatusOr<GenerationDefaults> LoadGenerationDefaults(const std::filesystem::path& model_dir) {
  const std::filesystem::path path = model_dir / "generation_config.json";
  const auto file = MappedFile::Open(path);
  if (absl::IsNotFound(file.status())) return GenerationDefaults();
  MNEME_RETURN_IF_ERROR(file.status());
  auto defaults = ParseGenerationDefaults(file->text());
  if (!defaults.ok()) return InFile(path, defaults.status());
  return defaults;
}

}  // namespace mneme
