#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/client/service_fixture.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;

using GenerateCommandTest = ServiceFixture;

TEST_F(GenerateCommandTest, PrintsTheTextAndASummary) {
  const RunResult result = Run({"generate", "Once upon a time"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, "and so on \n");
  EXPECT_THAT(result.err, HasSubstr("[STOP  4 + 3 tokens, 0 chunks closed, position 7"));
}

TEST_F(GenerateCommandTest, ReadsThePromptFromStandardInput) {
  const RunResult result = Run({"generate", "-"}, "one two");
  EXPECT_THAT(result.err, HasSubstr("2 + 3 tokens"));
}

TEST_F(GenerateCommandTest, AsksAsATurnAndLeavesNoTrace) {
  Run({"append", "-", "--session", "reader", "--create"}, "Anna door 4711.");
  const RunResult result =
      Run({"generate", "Anna door?", "--role", "user", "--session", "reader", "--no_learn"});
  EXPECT_EQ(result.out, "4711 \n");
  EXPECT_EQ(service_.text("reader"), "Anna door 4711.");
}

TEST_F(GenerateCommandTest, PrintsEventsAsLinesOfJson) {
  const RunResult result = Run({"generate", "Once", "--json"});
  EXPECT_EQ(result.exit_code, 0);
  std::istringstream lines(result.out);
  std::string line;
  std::vector<nlohmann::json> events;
  while (std::getline(lines, line)) events.push_back(nlohmann::json::parse(line));
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0]["token"]["text"], "and ");
  EXPECT_EQ(events[3]["finished"]["reason"], "FINISH_REASON_STOP");
  EXPECT_EQ(events[3]["finished"]["usage"]["prompt_tokens"], "1");
}

TEST_F(GenerateCommandTest, SaysWhenToComeBack) {
  service_.Drain();
  const RunResult result = Run({"generate", "Once"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.err,
            "mneme: UNAVAILABLE: the server is draining (reason DRAINING, retry after 1.5 s)\n");
}

TEST_F(GenerateCommandTest, RefusesABiasThatIsNone) {
  const RunResult result = Run({"generate", "Once", "--logit_bias", "12:3"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("--logit_bias 12:3: not ID=BIAS"));
}

TEST_F(GenerateCommandTest, CtrlCEndsAStream) {
  const RunResult result = RunAndInterrupt({"generate", "forever"});
  EXPECT_EQ(result.exit_code, 130);
  EXPECT_THAT(result.out, HasSubstr("on "));
  EXPECT_THAT(result.err, HasSubstr("mneme: interrupted\n"));
}

}  // namespace
}  // namespace mneme
