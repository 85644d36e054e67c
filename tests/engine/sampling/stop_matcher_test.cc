#include "engine/sampling/stop_matcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace mneme {
namespace {

using ::testing::HasSubstr;

struct Outcome {
  std::string text;
  std::optional<std::string> matched;

  friend bool operator==(const Outcome&, const Outcome&) = default;
};

std::ostream& operator<<(std::ostream& out, const Outcome& outcome) {
  return out << '"' << outcome.text << "\" matched " << outcome.matched.value_or("nothing");
}

Outcome Stream(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  StopMatcher matcher(stops);
  std::string text;
  for (const std::string& piece : pieces) {
    StopMatcher::Result result = matcher.Push(piece);
    text += result.text;
    if (result.matched.has_value()) return {text, result.matched};
  }
  return {text + matcher.Flush(), std::nullopt};
}

// Grows the text byte by byte until it ends with a stop string.
Outcome WholeStringSearch(const std::vector<std::string>& stops, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    const std::string* longest = nullptr;
    for (const std::string& stop : stops) {
      const bool ends = text.substr(0, end).ends_with(stop);
      if (ends && (longest == nullptr || stop.size() > longest->size())) longest = &stop;
    }
    if (longest != nullptr) return {text.substr(0, end - longest->size()), *longest};
  }
  return {text, std::nullopt};
}

// The length of the longest suffix of `text` that begins a stop string and is not all of it.
size_t HeldBytes(const std::vector<std::string>& stops, const std::string& text) {
  size_t held = 0;
  for (const std::string& stop : stops) {
    for (size_t size = 1; size < stop.size(); ++size) {
      if (text.ends_with(stop.substr(0, size))) held = std::max(held, size);
    }
  }
  return held;
}

TEST(StopMatcherTest, WithoutStopsAllTextPassesAtOnce) {
  StopMatcher matcher({});
  EXPECT_EQ(matcher.Push("any text").text, "any text");
  EXPECT_EQ(matcher.Push("").text, "");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcherTest, AStopInsideOnePieceCutsTheText) {
  StopMatcher matcher({"STOP"});
  const StopMatcher::Result result = matcher.Push("go on STOP never seen");
  EXPECT_EQ(result.text, "go on ");
  EXPECT_EQ(result.matched, "STOP");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcherTest, HoldsBackNoMoreThanWhatMayBeginAStop) {
  StopMatcher matcher({"\n\nUser:"});
  EXPECT_EQ(matcher.Push("Hello\n").text, "Hello");
  EXPECT_EQ(matcher.Push("\n").text, "");
  EXPECT_EQ(matcher.Push("\n").text, "\n");
  EXPECT_EQ(matcher.Push("User").text, "");
  EXPECT_EQ(matcher.Push("s").text, "\n\nUsers");
  EXPECT_EQ(matcher.Push("!\n").text, "!");
  EXPECT_EQ(matcher.Flush(), "\n");
}

TEST(StopMatcherTest, AStopOverManyPiecesIsFoundAndNothingOfItIsEmitted) {
  StopMatcher matcher({"<end>"});
  EXPECT_EQ(matcher.Push("a<").text, "a");
  EXPECT_EQ(matcher.Push("en").text, "");
  EXPECT_EQ(matcher.Push("").text, "");
  const StopMatcher::Result result = matcher.Push("d>b");
  EXPECT_EQ(result.text, "");
  EXPECT_EQ(result.matched, "<end>");
}

TEST(StopMatcherTest, TheStopThatIsCompleteFirstWins) {
  EXPECT_EQ(Stream({"abcd", "bc"}, {"xab", "cd"}), (Outcome{"xa", "bc"}));
  EXPECT_EQ(Stream({"aab", "ab", "aa"}, {"caab"}), (Outcome{"c", "aa"}));
  EXPECT_EQ(Stream({"aab", "ab", "aa"}, {"ca", "b"}), (Outcome{"c", "ab"}));
}

TEST(StopMatcherTest, OfStopsThatEndTogetherTheLongestWins) {
  EXPECT_EQ(Stream({"b", "ab", "aab"}, {"caab"}), (Outcome{"c", "aab"}));
  EXPECT_EQ(Stream({"aab", "ab", "b"}, {"cba"}), (Outcome{"c", "b"}));
}

TEST(StopMatcherTest, AFailedBeginningMayHoldTheTrueOne) {
  EXPECT_EQ(Stream({"aab"}, {"a", "a", "a", "b"}), (Outcome{"a", "aab"}));
  EXPECT_EQ(Stream({"ababc"}, {"abab", "abc"}), (Outcome{"ab", "ababc"}));
  EXPECT_EQ(Stream({"abcabd", "bca"}, {"abc", "c"}), (Outcome{"abcc", std::nullopt}));
}

TEST(StopMatcherTest, EmittedTextNeverSplitsACharacter) {
  // é is C3 A9 and è is C3 A8: their first bytes alone must not count as a beginning.
  StopMatcher matcher({"é!", "€"});
  EXPECT_EQ(matcher.Push("caf\u00e8").text, "cafè");
  EXPECT_EQ(matcher.Push("é").text, "");
  EXPECT_EQ(matcher.Push("é").text, "é");
  const StopMatcher::Result result = matcher.Push("₤€");
  EXPECT_EQ(result.text, "é₤");
  EXPECT_EQ(result.matched, "€");
}

TEST(StopMatcherTest, AnySplitGivesWhatAWholeStringSearchGives) {
  const std::vector<std::vector<std::string>> stop_sets = {
      {"aab", "ab", "aa"},
      {"aab", "ab"},
      {"abcabd", "bca", "cc"},
      {"aaaa", "baab"},
      {"éa", "aé", "éé"},
      {"abababc", "babb"},
      {"c"},
      {"bbbbbbbb", "bbbbbbbb"},
      {"a", "ab", "abc"},
      {"abc", "bc", "cabc"},
      {"ééé", "bé"},
  };
  const std::vector<std::string> letters = {"a", "a", "b", "b", "c", "é"};
  std::mt19937 random(7);
  const auto below = [&](size_t n) { return static_cast<size_t>(random()) % n; };
  int matches = 0;
  for (int trial = 0; trial < 20000; ++trial) {
    const std::vector<std::string>& stops = stop_sets[below(stop_sets.size())];
    std::vector<std::string> pieces(1);
    std::string text;
    for (size_t i = below(25); i > 0; --i) {
      const std::string& letter = letters[below(letters.size())];
      if (below(3) == 0) pieces.emplace_back();
      pieces.back() += letter;
      text += letter;
    }
    const Outcome expected = WholeStringSearch(stops, text);
    ASSERT_EQ(Stream(stops, pieces), expected) << "of " << text;
    matches += expected.matched.has_value() ? 1 : 0;
  }
  EXPECT_GT(matches, 5000);
  EXPECT_LT(matches, 19000);
}

TEST(StopMatcherTest, EveryPieceLeavesExactlyTheLongestBeginningHeld) {
  const std::vector<std::string> stops = {"aabaac", "abab!", "éb?"};
  const std::vector<std::string> letters = {"a", "b", "é"};
  std::mt19937 random(8);
  for (int trial = 0; trial < 200; ++trial) {
    StopMatcher matcher(stops);
    std::string received, emitted;
    for (int i = 0; i < 50; ++i) {
      const std::string& letter = letters[random() % letters.size()];
      received += letter;
      emitted += matcher.Push(letter).text;
      ASSERT_EQ(emitted, received.substr(0, received.size() - HeldBytes(stops, received)));
    }
    EXPECT_EQ(emitted + matcher.Flush(), received);
  }
}

TEST(StopMatcherTest, LongRepetitiveStopsCostTimeLinearInTheText) {
  // Quadratic work would be 64 · 1024 · 10⁵ comparisons.
  std::vector<std::string> stops(64, std::string(1023, 'a') + "b");
  StopMatcher matcher(stops);
  EXPECT_EQ(matcher.Push(std::string(100000, 'a')).text.size(), 100000U - 1023);
  EXPECT_EQ(matcher.Flush().size(), 1023U);
}

TEST(StopMatcherTest, ValidationRefusesWhatCannotBeMatched) {
  const auto message = [](const std::vector<std::string>& stops) {
    const absl::Status status = ValidateStopStrings(stops);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(message({"a", ""}), HasSubstr("stop[1] is empty"));
  EXPECT_THAT(message({std::string(1025, 'a')}), HasSubstr("stop[0] has 1025 bytes"));
  EXPECT_THAT(message(std::vector<std::string>(65, "a")), HasSubstr("65 strings"));
  EXPECT_THAT(message({"\xa9"}), HasSubstr("stop[0] begins inside a UTF-8 character"));
}

TEST(StopMatcherTest, ValidationAcceptsTheLimits) {
  EXPECT_TRUE(ValidateStopStrings({}).ok());
  EXPECT_TRUE(ValidateStopStrings(std::vector<std::string>(64, std::string(1024, 'a'))).ok());
  EXPECT_TRUE(ValidateStopStrings(std::vector<std::string>{"é", "\n"}).ok());
}

}  // namespace
}  // namespace mneme
