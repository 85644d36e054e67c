#ifndef MNEME_TESTS_ENGINE_TOKENIZER_FIXTURES_H_
#define MNEME_TESTS_ENGINE_TOKENIZER_FIXTURES_H_

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "engine/tokenizer/tokenizer.h"
#include "nlohmann/json.hpp"

namespace mneme {

// Where tools/tokenizer_vectors.py writes.
std::filesystem::path TokenizerData();

// The trained tokenizers there.
const Tokenizer& Qwen2Tokenizer();
const Tokenizer& Llama3Tokenizer();

// The smallest tokenizer.json that loads: 256 bytes with ids 0..255, "ab" = 256, "<s>" = 257
// (special), GPT-2's pre-tokenization.
nlohmann::json SmallTokenizerJson();

// Loads a file that must be good.
std::unique_ptr<const Tokenizer> MustLoad(const nlohmann::json& tokenizer_json);

// Encodes a text that must be encodable.
std::vector<int32_t> Ids(const Tokenizer& tokenizer, const std::string& text,
                         bool parse_special = false);

// Decodes ids that must be decodable, special tokens included.
std::string Text(const Tokenizer& tokenizer, const std::vector<int32_t>& ids);

}  // namespace mneme

#endif  // MNEME_TESTS_ENGINE_TOKENIZER_FIXTURES_H_
