// Every golden fixture over the wire. Invariant: the mathematics of DESIGN §1, as a client sees it.

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/e2e/real_server.h"
#include "tests/engine/loop_harness.h"

namespace mneme {
namespace {

constexpr double kTolerance = 2e-3;

class GoldenServerTest : public ::testing::TestWithParam<std::string> {
 protected:
  // Reads the fixture's tokens in three messages and compares their log-probabilities.
  void ExpectLogProbs(const v1::LearningControls& controls, const std::string& logits) {
    ASSERT_TRUE(server_.Create("s", controls).ok());
    const auto& tokens = golden_.tokens();
    const auto third = static_cast<std::ptrdiff_t>(tokens.size() / 3);
    std::vector<v1::AppendRequest> messages = {
        IdsMessage({tokens.begin(), tokens.begin() + third}, "s"),
        IdsMessage({tokens.begin() + third, tokens.begin() + third + 1}),
        IdsMessage({tokens.begin() + third + 1, tokens.end()})};
    messages[0].set_return_logprobs(true);
    const AppendResult result = server_.Append(messages);
    ASSERT_TRUE(result.status.ok()) << result.status.error_message();
    EXPECT_EQ(result.last.position(), tokens.size());
    ASSERT_EQ(result.logprobs.size(), tokens.size());
    EXPECT_LT(MaxDifference(result.logprobs, golden_.LogProbs(logits)), kTolerance);
  }

  Golden golden_{GetParam()};
  RealServer server_{golden_.dir()};
};

TEST_P(GoldenServerTest, LearningGivesTheLogProbabilities) { ExpectLogProbs({}, "logits"); }

TEST_P(GoldenServerTest, FreezeGivesThoseWithoutUpdates) {
  v1::LearningControls controls;
  controls.set_freeze(true);
  ExpectLogProbs(controls, "logits_no_update");
}

TEST_P(GoldenServerTest, ClipNormGivesTheClippedOnes) {
  v1::LearningControls controls;
  controls.set_clip_norm(0.5F);
  ExpectLogProbs(controls, "logits_clip_0.5");
}

TEST_P(GoldenServerTest, TheGreedyContinuationIsTheSame) {
  ASSERT_TRUE(server_.Create("s").ok());
  ASSERT_TRUE(server_.Append({IdsMessage(golden_.tokens(), "s")}).status.ok());
  const GenerateResult result =
      server_.Generate(GreedyMessage("s", static_cast<uint32_t>(golden_.greedy().size())));
  ASSERT_TRUE(result.status.ok()) << result.status.error_message();
  EXPECT_EQ(result.ids, golden_.greedy());
  EXPECT_EQ(result.finished_events, 1);
  EXPECT_EQ(result.finished.reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(result.finished.usage().completion_tokens(), golden_.greedy().size());
  EXPECT_EQ(result.finished.position(), golden_.tokens().size() + golden_.greedy().size());
}

INSTANTIATE_TEST_SUITE_P(Fixtures, GoldenServerTest, ::testing::ValuesIn(GoldenNames()),
                         [](const auto& fixture) {
                           std::string name = fixture.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace mneme
