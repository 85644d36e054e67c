#include "engine/tokenizer/utf8.h"

#include <string>

#include "gtest/gtest.h"

namespace mneme {
namespace {

const std::string kFffd = "\xEF\xBF\xBD";

TEST(Utf8Test, AcceptsTheFirstAndLastCodePointOfEachLength) {
  for (const char* text :
       {"\x01", "\x7F", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80",
        "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"}) {
    EXPECT_TRUE(IsValidUtf8(text));
  }
  EXPECT_TRUE(IsValidUtf8(std::string(3, '\0')));
  EXPECT_EQ(ReadUtf8("\xF4\x8F\xBF\xBF").code_point, char32_t{0x10FFFF});
}

TEST(Utf8Test, RefusesOverlongSurrogateTooLargeAndCutOff) {
  for (const char* text : {"\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80",
                           "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\x80",
                           "\xFF", "a\xE2\x82", "\xC3", "\xF0\x9F\x98"}) {
    EXPECT_FALSE(IsValidUtf8(text));
  }
}

TEST(Utf8Test, LossyReplacesEachMaximalSubpartOnce) {
  EXPECT_EQ(Utf8Lossy("a\xE2\x82z"), "a" + kFffd + "z");
  EXPECT_EQ(Utf8Lossy("\xF0\x9F\x98"), kFffd);
  EXPECT_EQ(Utf8Lossy("\xED\xA0\x80"), kFffd + kFffd + kFffd);
  EXPECT_EQ(Utf8Lossy("\xE2\x82\xE2\x82\xAC"), kFffd + "\xE2\x82\xAC");
  EXPECT_EQ(Utf8Lossy("\xC0\xAF"), kFffd + kFffd);
}

TEST(Utf8Test, DrainKeepsTheBeginningOfACharacter) {
  std::string bytes = "a\xFF\xF0\x9F";
  std::string text;
  DrainUtf8(&bytes, &text);
  EXPECT_EQ(text, "a" + kFffd);
  EXPECT_EQ(bytes, "\xF0\x9F");
  bytes += "\x98\x80";
  DrainUtf8(&bytes, &text);
  EXPECT_EQ(text, "a" + kFffd + "\xF0\x9F\x98\x80");
  EXPECT_EQ(bytes, "");
}

}  // namespace
}  // namespace mneme
