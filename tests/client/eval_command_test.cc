#include <nlohmann/json.hpp>

#include "tests/client/service_fixture.h"

namespace mneme {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;

constexpr char kTask[] = R"({
  "code_digits": 4, "uniform_slots": ["name", "attribute"],
  "fact": ["{name} {attribute} {code}."], "question": ["{name} {attribute}?"],
  "filler": ["The {noun} is near the {noun}."],
  "words": {"name": ["Anna", "Peter"], "attribute": ["door", "safe", "bike"],
            "noun": ["river", "house"]}})";

using EvalCommandTest = ServiceFixture;

TEST_F(EvalCommandTest, PrintsRecallWithAndWithoutLearning) {
  const RunResult result = Run({"eval", "--task", WriteFile("task.json", kTask), "--tokens", "1200",
                                "--facts", "6", "--seed", "3"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("all                     6      1.00      0.00"));
  EXPECT_THAT(result.out, HasSubstr("tokens a second"));
  EXPECT_THAT(result.out, HasSubstr("session MiB"));
  EXPECT_THAT(result.out, EndsWith("\nrecall learning=1.00 frozen=0.00\n"));
  EXPECT_THAT(result.err, HasSubstr("learning reads 100%"));
  EXPECT_THAT(result.err, HasSubstr("frozen   reads 100%"));
  EXPECT_THAT(result.err, HasSubstr("questions 100%  of 6 asked, learning knew 6, frozen 0"));
}

TEST_F(EvalCommandTest, DeletesItsSessions) {
  Run({"eval", "--task", WriteFile("task.json", kTask), "--tokens", "100", "--facts", "2"});
  EXPECT_THAT(service_.session_ids(), ElementsAre());
}

TEST_F(EvalCommandTest, KeepsTheLearningSessionIfAsked) {
  const RunResult result = Run({"eval", "--task", WriteFile("task.json", kTask), "--tokens", "100",
                                "--facts", "2", "--keep"});
  ASSERT_THAT(service_.session_ids(), ElementsAre("drawn-1"));
  EXPECT_THAT(result.out, HasSubstr("session kept: drawn-1"));
  EXPECT_THAT(service_.text("drawn-1"), HasSubstr("The river is near the"));
}

TEST_F(EvalCommandTest, PrintsJsonOverAllDocuments) {
  const RunResult result = Run({"eval", "--task", WriteFile("task.json", kTask), "--tokens", "100",
                                "--facts", "4", "--documents", "3", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const nlohmann::json json = nlohmann::json::parse(result.out);
  EXPECT_EQ(json["recall"]["questions"], 12);
  EXPECT_EQ(json["recall"]["learning"], 1.0);
  EXPECT_EQ(json["recall"]["frozen"], 0.0);
  EXPECT_GE(json["document_tokens"], 100);
}

TEST_F(EvalCommandTest, FailsClearly) {
  const RunResult missing = Run({"eval", "--task", "/nowhere/task.json"});
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_THAT(missing.err, HasSubstr("cannot open /nowhere/task.json"));
  const RunResult many = Run({"eval", "--task", WriteFile("task.json", kTask), "--facts", "7"});
  EXPECT_EQ(many.exit_code, 1);
  EXPECT_THAT(many.err, HasSubstr("7 facts do not fit"));
  service_.Drain();
  const RunResult draining = Run({"eval", "--task", WriteFile("task.json", kTask), "--facts", "2"});
  EXPECT_EQ(draining.exit_code, 1);
  EXPECT_THAT(draining.err, HasSubstr("mneme: UNAVAILABLE"));
  EXPECT_THAT(service_.session_ids(), ElementsAre());
}

}  // namespace
}  // namespace mneme
