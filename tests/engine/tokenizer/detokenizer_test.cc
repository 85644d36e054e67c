#include "engine/tokenizer/detokenizer.h"

#include <random>
#include <string>
#include <vector>

#include "engine/tokenizer/utf8.h"
#include "gtest/gtest.h"
#include "tests/engine/tokenizer/fixtures.h"

namespace mneme {
namespace {

const std::string kFffd = "\xEF\xBF\xBD";

// The text of a stream, each part of which must be valid UTF-8.
std::string Streamed(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  IncrementalDetokenizer detokenizer(tokenizer);
  std::string text;
  for (int32_t id : ids) {
    const std::string part = detokenizer.Push(id);
    EXPECT_TRUE(IsValidUtf8(part));
    text += part;
  }
  const std::string rest = detokenizer.Flush();
  EXPECT_TRUE(IsValidUtf8(rest));
  return text + rest;
}

TEST(DetokenizerTest, ACharacterComesWithItsLastByte) {
  const auto tokenizer = MustLoad(SmallTokenizerJson());
  IncrementalDetokenizer detokenizer(*tokenizer);
  EXPECT_EQ(detokenizer.Push('h'), "h");
  EXPECT_EQ(detokenizer.Push(0xF0), "");
  EXPECT_EQ(detokenizer.Push(0x9F), "");
  EXPECT_EQ(detokenizer.Push(0x98), "");
  EXPECT_EQ(detokenizer.Push(0x80), "😀");
  EXPECT_EQ(detokenizer.Flush(), "");
}

TEST(DetokenizerTest, BrokenBytesBecomeReplacementsAsSoonAsNothingCanMendThem) {
  const auto tokenizer = MustLoad(SmallTokenizerJson());
  IncrementalDetokenizer detokenizer(*tokenizer);
  EXPECT_EQ(detokenizer.Push(0xE2), "");
  EXPECT_EQ(detokenizer.Push('x'), kFffd + "x");
  EXPECT_EQ(detokenizer.Push(0x80), kFffd);
  EXPECT_EQ(detokenizer.Push(0xC3), "");
  EXPECT_EQ(detokenizer.Flush(), kFffd);
  EXPECT_EQ(detokenizer.Flush(), "");
  EXPECT_EQ(detokenizer.Push('y'), "y");
}

TEST(DetokenizerTest, SpecialAndUnknownIdsGiveNothing) {
  const auto tokenizer = MustLoad(SmallTokenizerJson());
  EXPECT_EQ(Streamed(*tokenizer, {'a', 257, 0xC3, 257, 0xA9, -1, 5000000, 'b'}), "aéb");
}

TEST(DetokenizerTest, StreamsOfCharactersCutAtAnyByteEqualDecode) {
  const auto small = MustLoad(SmallTokenizerJson());  // one id a byte: every cut there is
  for (const std::string text :
       {"naïve 😀👩‍👩‍👧‍👦🏳️‍🌈 中文 한국어 ไทย e\u0301",
        "\U0010FFFF\u07FF\uFFFD", ""}) {
    EXPECT_EQ(Streamed(*small, Ids(*small, text)), text);
  }
  const std::string emoji = "👩‍👩‍👧‍👦 and 🇩🇪1️⃣ über 敏捷的";
  EXPECT_EQ(Streamed(Llama3Tokenizer(), Ids(Llama3Tokenizer(), emoji)), emoji);
}

TEST(DetokenizerTest, StreamsOfRandomIdsEqualDecode) {
  std::mt19937 random(7);
  for (const Tokenizer* tokenizer : {&Qwen2Tokenizer(), &Llama3Tokenizer()}) {
    for (int stream = 0; stream < 2000; ++stream) {
      std::vector<int32_t> ids(random() % 40);
      // Half of the streams are of single bytes, which lie below 300, to be rich in broken UTF-8.
      const int32_t end = stream % 2 == 0 ? 300 : tokenizer->vocab_size();
      for (int32_t& id : ids) id = static_cast<int32_t>(random() % static_cast<uint32_t>(end));
      const auto decoded = tokenizer->Decode(ids, /*include_special=*/false);
      ASSERT_TRUE(decoded.ok());
      ASSERT_EQ(Streamed(*tokenizer, ids), *decoded);
    }
  }
}

}  // namespace
}  // namespace mneme
