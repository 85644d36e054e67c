#include "engine/tokenizer/regex.h"

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/tokenizer/regex_dialect.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace mneme {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> Pieces(const std::string& pattern, const std::string& text) {
  const auto regex = Regex::Compile(pattern);
  if (!regex.ok()) return {std::string(regex.status().message())};
  const auto pieces = regex->Split({text});
  if (!pieces.ok()) return {std::string(pieces.status().message())};
  return std::vector<std::string>(pieces->begin(), pieces->end());
}

absl::StatusCode CompileCode(const std::string& pattern) {
  return Regex::Compile(pattern).status().code();
}

TEST(RegexTest, SplitsIntoMatchesAndWhatIsBetween) {
  EXPECT_THAT(Pieces(R"(\p{N}+)", "ab12cd3"), ElementsAre("ab", "12", "cd", "3"));
  EXPECT_THAT(Pieces("x", "abc"), ElementsAre("abc"));
  EXPECT_THAT(Pieces("x", ""), ElementsAre());
}

TEST(RegexTest, AnEmptyMatchCutsAndGoesOn) {
  EXPECT_THAT(Pieces("x*", "aéxx"), ElementsAre("a", "é", "xx"));
}

TEST(RegexTest, LooksAheadWithinTheTextOnly) {
  EXPECT_THAT(Pieces(R"(\s+(?!\S))", "a   b  "), ElementsAre("a", "  ", " b", "  "));
}

TEST(RegexTest, WhiteSpaceIsWhatUnicodeCallsSo) {
  const std::vector<std::string> spaces = {"\t",     "\v",     " ",      "\u0085",
                                           "\u00A0", "\u1680", "\u2000", "\u200A",
                                           "\u2028", "\u202F", "\u205F", "\u3000"};
  for (const std::string& space : spaces) {
    EXPECT_THAT(Pieces(R"(\s)", "a" + space + "b"), ElementsAre("a", space, "b"));
    EXPECT_THAT(Pieces(R"([^\s]+)", "a" + space), ElementsAre("a", space));
    EXPECT_THAT(Pieces(R"(\S)", space), ElementsAre(space));
    EXPECT_THAT(Pieces(R"([\S]+)", "ab" + space + "c"), ElementsAre("ab", space, "c"));
  }
  for (const std::string other : {"\u180E", "\u200B", "\u200D", "\u2060", "\uFEFF", "\x1C"}) {
    EXPECT_THAT(Pieces(R"(\s)", "a" + other + "b"), ElementsAre("a" + other + "b"));
    EXPECT_THAT(Pieces(R"([\S]+)", "a" + other), ElementsAre("a" + other));
  }
}

TEST(RegexTest, IgnoresCaseAsUnicodeDoes) {
  EXPECT_THAT(Pieces("(?i:'s)", "a'Sb'\u017Fc"), ElementsAre("a", "'S", "b", "'\u017F", "c"));
}

TEST(RegexTest, BrokenPatternsAreInvalid) {
  for (const char* pattern : {"(", "a)", "[a", "a\\", "*", "a{3,1}", "[z-a]", "\\p{Xx}"}) {
    EXPECT_EQ(CompileCode(pattern), absl::StatusCode::kInvalidArgument) << pattern;
  }
  EXPECT_EQ(CompileCode(std::string(100000, 'a')), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CompileCode(std::string(5000, '(') + std::string(5000, ')')),
            absl::StatusCode::kInvalidArgument);
}

TEST(RegexTest, WhatTheDialectsReadDifferentlyIsUnimplemented) {
  for (const char* pattern :
       {"^a",    "a$",    "[[:alpha:]]", "[a[bc]]", "[a&&b]",   "[]a]",  "\\h",     "\\w",
        "\\b",   "\\v",   "\\K",         "\\1",     "\\p{Han}", "\\pL",  "\\p{^L}", "(?<n>a)",
        "(?m)a", "(?i)a", "(*UTF)a",     "a{,3}",   "a{2}+",    "a{2}?", "{x}"}) {
    EXPECT_EQ(CompileCode(pattern), absl::StatusCode::kUnimplemented) << pattern;
  }
}

TEST(RegexTest, CatastrophicBacktrackingIsResourceExhausted) {
  const auto regex = Regex::Compile("(a|a)*[bc]");
  ASSERT_TRUE(regex.ok());
  const std::string text(100, 'a');
  EXPECT_EQ(regex->Split({text}).status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace mneme
