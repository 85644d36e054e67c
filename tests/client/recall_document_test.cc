#include "client/recall_document.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <numeric>
#include <set>

#include "absl/strings/str_cat.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;

// One token for each word.
absl::StatusOr<uint64_t> CountWords(const std::string& text) {
  return static_cast<uint64_t>(std::count(text.begin(), text.end(), ' ')) + (text[0] != ' ');
}

RecallTask BundledTask() {
  std::ifstream file("models/mneme-demo/recall_task.json");
  const absl::StatusOr<RecallTask> task =
      ParseRecallTask(std::string(std::istreambuf_iterator<char>(file), {}));
  EXPECT_TRUE(task.ok()) << task.status();
  return task.value_or(RecallTask());
}

RecallDocument MakeDocument(const RecallOptions& options) {
  const RecallTask task = BundledTask();
  const absl::StatusOr<RecallDocument> document = MakeRecallDocument(task, options, CountWords);
  EXPECT_TRUE(document.ok()) << document.status();
  return document.value_or(RecallDocument());
}

std::string Text(const RecallDocument& document) {
  return std::accumulate(document.sentences.begin(), document.sentences.end(), std::string());
}

TEST(RecallDocumentTest, TheSameSeedGivesTheSameDocument) {
  const RecallDocument first = MakeDocument({.tokens = 2000, .facts = 10, .seed = 3});
  const RecallDocument again = MakeDocument({.tokens = 2000, .facts = 10, .seed = 3});
  const RecallDocument other = MakeDocument({.tokens = 2000, .facts = 10, .seed = 4});
  EXPECT_EQ(first.sentences, again.sentences);
  ASSERT_EQ(again.facts.size(), 10u);
  for (size_t i = 0; i < 10; ++i) EXPECT_EQ(first.facts[i].question, again.facts[i].question);
  EXPECT_NE(first.sentences, other.sentences);
}

TEST(RecallDocumentTest, APairOfNameAndAttributeOccursOnce) {
  const RecallDocument document = MakeDocument({.tokens = 20000, .facts = 500, .seed = 1});
  std::set<std::pair<std::string, std::string>> pairs;
  for (const RecallFact& fact : document.facts) pairs.emplace(fact.name, fact.attribute);
  EXPECT_EQ(pairs.size(), 500u);
}

TEST(RecallDocumentTest, HasTheTokensAskedForAndHardlyMore) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const RecallDocument document = MakeDocument({.tokens = 1000, .facts = 60, .seed = seed});
    EXPECT_EQ(document.total_tokens, CountWords(Text(document)).value());
    EXPECT_GE(document.total_tokens, 1000u);
    EXPECT_LT(document.total_tokens, 1200u);
  }
}

TEST(RecallDocumentTest, EveryQuestionIsAnsweredBeforeTheFactsEnd) {
  const RecallDocument document = MakeDocument({.tokens = 3000, .facts = 40, .seed = 9});
  ASSERT_EQ(document.facts.size(), 40u);
  uint64_t tokens = 0;
  size_t next = 0;
  for (const std::string& sentence : document.sentences) {
    tokens += CountWords(sentence).value();
    if (next == 40 || document.facts[next].end_tokens != tokens) continue;
    const RecallFact& fact = document.facts[next++];
    EXPECT_THAT(sentence, HasSubstr(fact.name));
    EXPECT_THAT(sentence, HasSubstr(fact.attribute));
    EXPECT_THAT(sentence, HasSubstr(fact.code));
    EXPECT_THAT(fact.question, HasSubstr(fact.name));
    EXPECT_THAT(fact.question, HasSubstr(fact.attribute));
    EXPECT_EQ(fact.question.find(fact.code), std::string::npos);
    EXPECT_EQ(fact.code.size(), 4u);
  }
  EXPECT_EQ(next, 40u);
}

TEST(RecallDocumentTest, LeavesNoSlotUnfilled) {
  const RecallDocument document = MakeDocument({.tokens = 5000, .facts = 100, .seed = 2});
  EXPECT_EQ(Text(document).find_first_of("{}"), std::string::npos);
  for (const RecallFact& fact : document.facts) {
    EXPECT_EQ(fact.question.find_first_of("{}"), std::string::npos);
  }
}

TEST(RecallDocumentTest, RefusesMoreFactsThanItHasRoomFor) {
  const RecallTask task = BundledTask();
  const auto many = MakeRecallDocument(task, {.tokens = 100, .facts = 1000}, CountWords);
  EXPECT_EQ(many.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(many.status().message()), HasSubstr("1000 facts do not fit"));
  const auto none = MakeRecallDocument(task, {.tokens = 0, .facts = 1}, CountWords);
  EXPECT_EQ(none.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(RecallDocumentTest, HandsOnTheCountersError) {
  const RecallTask task = BundledTask();
  const auto document = MakeRecallDocument(
      task, RecallOptions(), [](const std::string&) { return absl::UnavailableError("away"); });
  EXPECT_EQ(document.status().code(), absl::StatusCode::kUnavailable);
}

constexpr char kSmallTask[] = R"({
  "code_digits": 2, "fact": ["{name} {attribute} {code}"], "question": ["{name} {attribute}?"],
  "filler": ["A {noun}."], "words": {"name": ["N"], "attribute": ["a"], "noun": ["x", "y"]}})";

std::string Replaced(const std::string& from, const std::string& to) {
  std::string json = kSmallTask;
  const size_t at = json.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return json.replace(at, from.size(), to);
}

TEST(ParseRecallTaskTest, ReadsASmallTask) {
  const absl::StatusOr<RecallTask> task = ParseRecallTask(kSmallTask);
  ASSERT_TRUE(task.ok()) << task.status();
  EXPECT_EQ(task->code_digits, 2u);
  EXPECT_EQ(task->words.at("noun").size(), 2u);
}

TEST(ParseRecallTaskTest, RefusesWhatIsMalformed) {
  const std::string broken[] = {
      "",
      "[]",
      Replaced("\"code_digits\": 2", "\"code_digits\": 0"),
      Replaced("\"code_digits\": 2", "\"code_digits\": -2"),
      Replaced("\"code_digits\": 2", "\"code_digits\": \"2\""),
      Replaced("\"filler\": [\"A {noun}.\"]", "\"filler\": []"),
      Replaced("\"filler\": [\"A {noun}.\"]", "\"filler\": [3]"),
      Replaced("{noun}", "{verb}"),
      Replaced("{noun}", "{noun"),
      Replaced("{code}", "code"),
      Replaced("\"question\": [\"{name}", "\"question\": [\"{code} {name}"),
      Replaced("\"name\": [\"N\"],", ""),
      Replaced("\"noun\": [\"x\", \"y\"]", "\"noun\": []"),
  };
  for (const std::string& json : broken) {
    EXPECT_EQ(ParseRecallTask(json).status().code(), absl::StatusCode::kInvalidArgument) << json;
  }
}

}  // namespace
}  // namespace mneme
