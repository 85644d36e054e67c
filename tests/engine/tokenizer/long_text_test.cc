// Texts whose pieces are as long as the text. Anything quadratic would not end in test time.

#include <string>

#include "engine/tokenizer/nfc.h"
#include "gtest/gtest.h"
#include "tests/engine/tokenizer/fixtures.h"

namespace mneme {
namespace {

constexpr size_t kBytes = 1 << 20;

std::string Repeated(const std::string& unit) {
  std::string text;
  while (text.size() < kBytes) text += unit;
  return text;
}

// What the tokenizer's normalizer makes of the text.
std::string Normalized(const Tokenizer& tokenizer, const std::string& text) {
  return &tokenizer == &Qwen2Tokenizer() ? NormalizeNfc(text) : text;
}

void ExpectRoundTrip(const std::string& text) {
  for (const Tokenizer* tokenizer : {&Qwen2Tokenizer(), &Llama3Tokenizer()}) {
    EXPECT_TRUE(Text(*tokenizer, Ids(*tokenizer, text)) == Normalized(*tokenizer, text));
  }
}

class LongTextTest : public testing::TestWithParam<const char*> {};

TEST_P(LongTextTest, EncodesAndComesBack) { ExpectRoundTrip(Repeated(GetParam())); }

INSTANTIATE_TEST_SUITE_P(Units, LongTextTest,
                         testing::Values("a", " ", "\n", " \n", "😀", "👩‍👩‍👧‍👦",
                                         "中", "7", "!", "<", "<|im_", "'s", "\u0316\u0301", "a b",
                                         "\u3000", "\u200d"));

TEST(LongSpaceTest, BeforeALetterEncodesAndComesBack) {
  for (const char* space : {" ", "\n", "\u3000"}) ExpectRoundTrip(Repeated(space) + "x");
}

}  // namespace
}  // namespace mneme
