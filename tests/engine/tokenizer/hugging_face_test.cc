// Holds Encode and Decode against the vectors of tools/tokenizer_vectors.py.

#include <fstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/engine/tokenizer/fixtures.h"

namespace mneme {
namespace {

using Json = nlohmann::json;

const std::vector<Json>& Vectors() {
  static const std::vector<Json> vectors = [] {
    std::vector<Json> rows;
    std::ifstream file(TokenizerData() / "vectors.jsonl");
    for (std::string line; std::getline(file, line);) rows.push_back(Json::parse(line));
    return rows;
  }();
  return vectors;
}

int32_t Digit(char c) {
  static const std::string digits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  return static_cast<int32_t>(digits.find(c));
}

std::vector<int32_t> Unpacked(const std::string& packed) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i + 1 < packed.size(); i += 2) {
    ids.push_back(Digit(packed[i]) * 64 + Digit(packed[i + 1]));
  }
  return ids;
}

void ExpectVectors(const Tokenizer& tokenizer, const char* as_text, const char* parsed,
                   bool normalizes) {
  for (const Json& row : Vectors()) {
    const std::string text = row["t"];
    const std::string expected_text = normalizes && row.contains("n") ? row["n"] : row["t"];
    for (const bool parse_special : {false, true}) {
      const char* key = parse_special && row.contains(parsed) ? parsed : as_text;
      const std::vector<int32_t> ids = Ids(tokenizer, text, parse_special);
      ASSERT_EQ(ids, Unpacked(row[key])) << row["t"] << " parse_special " << parse_special;
      ASSERT_EQ(Text(tokenizer, ids), expected_text) << row["t"];
    }
  }
}

TEST(HuggingFaceTest, VectorsAreManyAndParseSpecialMattersInSome) {
  size_t differ = 0;
  for (const Json& row : Vectors()) differ += row.contains("Q") || row.contains("L");
  EXPECT_GE(Vectors().size(), 10000u);
  EXPECT_GE(differ, 300u);
}

TEST(HuggingFaceTest, Qwen2LikeIdsAreEqualAndDecodeToTheNfcOfTheText) {
  ExpectVectors(Qwen2Tokenizer(), "q", "Q", /*normalizes=*/true);
}

TEST(HuggingFaceTest, Llama3LikeIdsAreEqualAndDecodeToTheText) {
  ExpectVectors(Llama3Tokenizer(), "l", "L", /*normalizes=*/false);
}

TEST(HuggingFaceTest, WithoutParseSpecialNoVectorYieldsASpecialToken) {
  for (const Tokenizer* tokenizer : {&Qwen2Tokenizer(), &Llama3Tokenizer()}) {
    for (const Json& row : Vectors()) {
      for (int32_t id : Ids(*tokenizer, row["t"]))
        ASSERT_FALSE(tokenizer->IsSpecial(id)) << row["t"];
    }
  }
}

}  // namespace
}  // namespace mneme
