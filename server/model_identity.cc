#include "server/model_identity.h"

#include <xxhash.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"

namespace mneme {
namespace {

using HashState = std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)>;

absl::Status HashFile(const std::filesystem::path& path, XXH3_state_t* state) {
  std::ifstream file(path, std::ios::binary);
  std::vector<char> block(1 << 20);
  while (file.read(block.data(), static_cast<std::streamsize>(block.size())) || file.gcount() > 0) {
    XXH3_128bits_update(state, block.data(), static_cast<size_t>(file.gcount()));
  }
  if (file.eof() && !file.bad()) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat("cannot read ", path.string()));
}

std::vector<std::filesystem::path> FilesOf(const std::filesystem::path& model_dir) {
  std::vector<std::filesystem::path> files = {model_dir / "config.json"};
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(model_dir, error)) {
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  }
  std::sort(files.begin() + 1, files.end());
  return files;
}

std::string Hexadecimal(const XXH128_hash_t& hash) {
  return absl::StrFormat("%016x%016x", hash.high64, hash.low64);
}

int64_t CountLayerParameters(const ModelConfig& config) {
  const int64_t d = config.hidden_size;
  const int64_t query_width = config.num_heads * config.head_dim;
  const int64_t qkv_width = query_width + 2 * config.num_kv_heads * config.head_dim;
  int64_t count = d * qkv_width + query_width * d + 3 * d * config.intermediate_size + 2 * d;
  if (config.architecture == Architecture::kQwen3) count += 2 * config.head_dim;
  if (config.attention_bias) count += qkv_width + d;
  return count;
}

}  // namespace

int64_t CountParameters(const ModelConfig& config) {
  constexpr int64_t kConvTaps = 5;
  const int64_t d = config.hidden_size;
  int64_t count = config.num_layers * CountLayerParameters(config) + d;
  count += (config.tie_word_embeddings ? 1 : 2) * config.vocab_size * d;
  if (config.ttt) {
    const int64_t per_layer = kConvTaps * d + (config.ttt->projection ? d * d : 0);
    count += static_cast<int64_t>(config.ttt->layers.size()) * per_layer;
  }
  return count;
}

absl::StatusOr<std::string> Fingerprint(const std::filesystem::path& model_dir,
                                        int64_t sliding_window) {
  const HashState state(XXH3_createState(), XXH3_freeState);
  XXH3_128bits_reset(state.get());
  for (const std::filesystem::path& file : FilesOf(model_dir)) {
    MNEME_RETURN_IF_ERROR(HashFile(file, state.get()));
  }
  XXH3_128bits_update(state.get(), &sliding_window, sizeof(sliding_window));
  return Hexadecimal(XXH3_128bits_digest(state.get()));
}

std::string RandomFingerprint(const std::string& shape, uint64_t seed, int64_t chunk,
                              int64_t sliding_window) {
  const std::string text = absl::StrCat(shape, "|", seed, "|", chunk, "|", sliding_window);
  return Hexadecimal(XXH3_128bits(text.data(), text.size()));
}

uint64_t StateFingerprint(const std::string& model, const std::vector<std::string>& computed_by) {
  const std::string text = absl::StrCat(model, "|", absl::StrJoin(computed_by, "|"));
  return std::max<uint64_t>(XXH3_64bits(text.data(), text.size()), 1);
}

}  // namespace mneme
