#include "tests/engine/tokenizer/fixtures.h"

#include <utility>

#include "base/check.h"
#include "engine/tokenizer/byte_level.h"

namespace mneme {
namespace {

std::unique_ptr<const Tokenizer> LoadFixture(const std::string& name) {
  auto tokenizer = Tokenizer::Load(TokenizerData() / name);
  MNEME_CHECK(tokenizer.ok());
  return std::move(tokenizer).value();
}

}  // namespace

std::filesystem::path TokenizerData() { return "tests/engine/tokenizer/data"; }

const Tokenizer& Qwen2Tokenizer() {
  static const auto tokenizer = LoadFixture("qwen2");
  return *tokenizer;
}

const Tokenizer& Llama3Tokenizer() {
  static const auto tokenizer = LoadFixture("llama3");
  return *tokenizer;
}

nlohmann::json SmallTokenizerJson() {
  nlohmann::json vocab = nlohmann::json::object();
  for (int byte = 0; byte < 256; ++byte) vocab[SpellingOfByte(static_cast<uint8_t>(byte))] = byte;
  vocab["ab"] = 256;
  return {
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"a b"}}}},
      {"added_tokens", {{{"content", "<s>"}, {"id", 257}, {"special", true}}}},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
      {"decoder", {{"type", "ByteLevel"}}},
  };
}

std::unique_ptr<const Tokenizer> MustLoad(const nlohmann::json& tokenizer_json) {
  auto tokenizer = Tokenizer::FromJson(tokenizer_json.dump(), "");
  MNEME_CHECK(tokenizer.ok());
  return std::move(tokenizer).value();
}

std::vector<int32_t> Ids(const Tokenizer& tokenizer, const std::string& text, bool parse_special) {
  auto ids = tokenizer.Encode(text, parse_special);
  MNEME_CHECK(ids.ok());
  return std::move(ids).value();
}

std::string Text(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  auto text = tokenizer.Decode(ids, /*include_special=*/true);
  MNEME_CHECK(text.ok());
  return std::move(text).value();
}

}  // namespace mneme
