// Any bytes as config.json and as generation_config.json: refused, or within the limits that the
// engine computes with.

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "engine/loading/config.h"

namespace {

void CheckModel(const mneme::ModelConfig& config) {
  MNEME_CHECK(config.num_layers >= 1 && config.num_layers <= 1000);
  MNEME_CHECK(config.num_heads % config.num_kv_heads == 0 && config.head_dim % 2 == 0);
  MNEME_CHECK(config.windows.size() == static_cast<size_t>(config.num_layers));
  MNEME_CHECK(config.MaxSessionTokens() >= 1);
  if (config.ttt) {
    MNEME_CHECK(!config.ttt->layers.empty() && config.ttt->chunk >= 1);
    MNEME_CHECK(std::isfinite(config.ttt->learning_rate));
    for (const int layer : config.ttt->layers) MNEME_CHECK(layer >= 0 && layer < config.num_layers);
  }
  const mneme::RopeTables tables =
      mneme::MakeRopeTables(config.rope, config.head_dim, config.max_position_embeddings);
  MNEME_CHECK(std::isfinite(tables.attention_factor));
  for (const double frequency : tables.inverse_frequencies) {
    MNEME_CHECK(std::isfinite(frequency) && frequency >= 0 && frequency <= 1);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const auto config = mneme::ParseModelConfig(text);
  if (config.ok()) CheckModel(*config);
  const auto defaults = mneme::ParseGenerationDefaults(text);
  if (defaults.ok()) MNEME_CHECK(defaults->temperature.value_or(0) >= 0);
  return 0;
}
