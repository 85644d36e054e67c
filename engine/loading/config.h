#ifndef MNEME_ENGINE_LOADING_CONFIG_H_
#define MNEME_ENGINE_LOADING_CONFIG_H_

// What a model is, read from a Hugging Face directory's config.json and generation_config.json.
// Parsing trusts nothing: every value that could make a later computation meaningless or oversized
// is an INVALID_ARGUMENT that names the key; what Mneme cannot compute is UNIMPLEMENTED.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace mneme {

enum class Architecture : uint8_t { kQwen3, kLlama };  // Qwen3 has RMSNorm on q and k heads

enum class RopeKind : uint8_t { kDefault, kLinear, kLlama3, kYarn };

struct RopeConfig {
  RopeKind kind = RopeKind::kDefault;
  double theta = 10000;
  double factor = 1;                             // linear, llama3, yarn
  double low_freq_factor = 1;                    // llama3
  double high_freq_factor = 4;                   // llama3
  double beta_fast = 32;                         // yarn
  double beta_slow = 1;                          // yarn
  int64_t original_max_position_embeddings = 0;  // llama3, yarn
  std::optional<double> attention_factor;        // yarn; absent: 0.1 ln(factor) + 1
  bool truncate = true;                          // yarn: round the correction range
};

// The tables that RoPE rotates with.
struct RopeTables {
  std::vector<double> inverse_frequencies;  // [head_dim / 2], radians per position
  double attention_factor = 1;              // on cosine and sine
};

// What an update's values v are made from (DESIGN §1).
enum class TttTarget : uint8_t { kHiddenStates, kInputEmbed };

// In-Place Test-Time Training of some layers' down-projections.
struct TttConfig {
  std::vector<int> layers;     // ascending, all of them exist
  int64_t chunk = 8192;        // C, tokens
  float learning_rate = 0.3F;  // η
  bool projection = true;
  TttTarget target = TttTarget::kHiddenStates;
};

struct ModelConfig {
  Architecture architecture = Architecture::kQwen3;
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;        // d
  int64_t intermediate_size = 0;  // f
  int num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  float rms_norm_eps = 1e-6F;
  RopeConfig rope;
  int64_t max_position_embeddings = 0;
  bool tie_word_embeddings = false;
  bool attention_bias = false;   // on q, k, v and o
  std::vector<int64_t> windows;  // [num_layers], tokens, itself included; 0: full attention
  std::optional<TttConfig> ttt;  // absent: an ordinary model
  std::vector<int32_t> eos_token_ids;
  std::optional<int32_t> bos_token_id;

  // Tokens that a session may hold: max_position_embeddings if any layer has full attention,
  // otherwise no limit (INT64_MAX).
  int64_t MaxSessionTokens() const;
};

// Sampling defaults of generation_config.json; absent values stay absent.
struct GenerationDefaults {
  std::optional<float> temperature;  // 0 if do_sample is false
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<int32_t> top_k;
  std::optional<float> repetition_penalty;
  std::vector<int32_t> eos_token_ids;  // empty: those of config.json
};

// Parses config.json. `sliding_window` > 0 replaces the window of every layer (--sliding_window).
absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view json, int64_t sliding_window = 0);

// Parses generation_config.json.
absl::StatusOr<GenerationDefaults> ParseGenerationDefaults(absl::string_view json);

// Reads DIR/config.json; NOT_FOUND if there is none.
absl::StatusOr<ModelConfig> LoadModelConfig(const std::filesystem::path& model_dir,
                                            int64_t sliding_window = 0);

// Reads DIR/generation_config.json; all absent if there is none.
absl::StatusOr<GenerationDefaults> LoadGenerationDefaults(const std::filesystem::path& model_dir);

// Inverse frequencies and attention factor of each RopeKind as Hugging Face computes them.
RopeTables MakeRopeTables(const RopeConfig& rope, int64_t head_dim,
                          int64_t max_position_embeddings);

}  // namespace mneme

#endif  // MNEME_ENGINE_LOADING_CONFIG_H_
