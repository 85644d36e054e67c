#include "engine/tokenizer/tokenizer.h"

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/tokenizer/fixtures.h"

namespace mneme {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

nlohmann::json WithAdded(const char* content, bool special, bool normalized) {
  nlohmann::json json = SmallTokenizerJson();
  json["added_tokens"].push_back(
      {{"content", content}, {"id", 300}, {"special", special}, {"normalized", normalized}});
  return json;
}

TEST(TokenizerTest, SpecialTokensAreRecognizedOnlyWhenAskedFor) {
  const auto tokenizer = MustLoad(SmallTokenizerJson());
  EXPECT_THAT(Ids(*tokenizer, "ab<s>", true), ElementsAre(256, 257));
  EXPECT_THAT(Ids(*tokenizer, "ab<s>", false), ElementsAre(256, '<', 's', '>'));
}

TEST(TokenizerTest, OtherAddedTokensAreAlwaysRecognized) {
  const auto tokenizer = MustLoad(WithAdded("<think>", false, false));
  EXPECT_THAT(Ids(*tokenizer, "a<think>b"), ElementsAre('a', 300, 'b'));
  EXPECT_FALSE(tokenizer->IsSpecial(300));
}

TEST(TokenizerTest, TheLongestOfTheLeftmostAddedTokensWins) {
  const auto tokenizer = MustLoad(WithAdded("<s><s>!", false, false));
  EXPECT_THAT(Ids(*tokenizer, "<s><s>!<s><s>?", true), ElementsAre(300, 257, 257, '?'));
}

TEST(TokenizerTest, NormalizedAddedTokensAreFoundInTheNormalizedText) {
  nlohmann::json json = WithAdded("[e\u0301]", false, true);
  json["normalizer"] = {{"type", "NFC"}};
  const auto tokenizer = MustLoad(json);
  EXPECT_THAT(Ids(*tokenizer, "[\u00E9]"), ElementsAre(300));
  EXPECT_THAT(Ids(*tokenizer, "[e\u0301]"), ElementsAre(300));
}

TEST(TokenizerTest, NormalizationDoesNotMakeASpecialTokenOutOfText) {
  nlohmann::json json = WithAdded("[\u00E9]", true, true);
  json["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "NFC"}}}}};
  const auto tokenizer = MustLoad(json);
  for (int32_t id : Ids(*tokenizer, "[e\u0301] [\u00E9]")) EXPECT_FALSE(tokenizer->IsSpecial(id));
  EXPECT_THAT(Ids(*tokenizer, "[e\u0301]", true), ElementsAre(300));
}

TEST(TokenizerTest, EmptyTextHasNoTokens) {
  EXPECT_THAT(Ids(Qwen2Tokenizer(), ""), IsEmpty());
  EXPECT_EQ(Text(Qwen2Tokenizer(), {}), "");
}

TEST(TokenizerTest, EncodeNeverAddsBos) {
  const int32_t bos = Llama3Tokenizer().bos_id().value();
  EXPECT_EQ(Llama3Tokenizer().TokenBytes(bos), "<|begin_of_text|>");
  EXPECT_THAT(Ids(Llama3Tokenizer(), "x"), ElementsAre(Llama3Tokenizer().TokenToId("x").value()));
  EXPECT_FALSE(Qwen2Tokenizer().bos_id().has_value());
}

TEST(TokenizerTest, TextMustBeUtf8) {
  for (const char* text : {"\xFF", "a\xC3", "\xED\xA0\x80"}) {
    EXPECT_EQ(Qwen2Tokenizer().Encode(text, false).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(Text(Qwen2Tokenizer(), Ids(Qwen2Tokenizer(), "fine")), "fine");
}

TEST(TokenizerTest, DecodeLeavesSpecialTokensOutOrSpellsThem) {
  const auto tokenizer = MustLoad(SmallTokenizerJson());
  EXPECT_EQ(tokenizer->Decode({257, 256, 257}, true).value(), "<s>ab<s>");
  EXPECT_EQ(tokenizer->Decode({257, 256, 257}, false).value(), "ab");
}

TEST(TokenizerTest, DecodeReplacesBrokenUtf8) {
  const auto tokenizer = MustLoad(SmallTokenizerJson());
  EXPECT_EQ(tokenizer->Decode({'a', 0xE2, 0x82, 'b', 0xFF}, true).value(), "a\uFFFDb\uFFFD");
}

TEST(TokenizerTest, DecodeRefusesIdsOutsideTheVocabulary) {
  const auto tokenizer = MustLoad(SmallTokenizerJson());
  EXPECT_EQ(tokenizer->vocab_size(), 258);
  for (int32_t id : {-1, 258, INT32_MAX, INT32_MIN}) {
    EXPECT_EQ(tokenizer->Decode({id}, true).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(tokenizer->TokenBytes(id), "");
    EXPECT_FALSE(tokenizer->IsSpecial(id));
  }
}

TEST(TokenizerTest, IdsThatNoTokenHasDecodeToNothing) {
  const auto tokenizer = MustLoad(WithAdded("x!", false, false));
  EXPECT_EQ(tokenizer->vocab_size(), 301);
  EXPECT_EQ(tokenizer->Decode({280}, true).value(), "");
}

TEST(TokenizerTest, TokenBytesAreTheBytesNotTheSpelling) {
  const auto tokenizer = MustLoad(SmallTokenizerJson());
  EXPECT_EQ(tokenizer->TokenToId("Ġ"), ' ');
  EXPECT_EQ(tokenizer->TokenBytes(' '), " ");
  EXPECT_EQ(tokenizer->TokenBytes(0xFF), "\xFF");
  EXPECT_EQ(tokenizer->TokenToId("nothing"), std::nullopt);
}

TEST(TokenizerTest, LoadReadsTheConfigBesideTheTokenizer) {
  const std::filesystem::path dir =
      std::filesystem::path(testing::TempDir()) / "mneme_tokenizer_test";
  std::filesystem::create_directories(dir);
  EXPECT_EQ(Tokenizer::Load(dir).status().code(), absl::StatusCode::kNotFound);
  std::ofstream(dir / "tokenizer.json") << SmallTokenizerJson().dump();
  EXPECT_FALSE(Tokenizer::Load(dir).value()->bos_id().has_value());
  std::ofstream(dir / "tokenizer_config.json") << R"({"add_bos_token": true, "bos_token": "<s>"})";
  EXPECT_EQ(Tokenizer::Load(dir).value()->bos_id(), 257);
  std::ofstream(dir / "tokenizer_config.json") << "{";
  EXPECT_EQ(Tokenizer::Load(dir).status().code(), absl::StatusCode::kInvalidArgument);
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace mneme
