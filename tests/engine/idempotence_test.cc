// Invariant: a request id makes a request idempotent (DESIGN §2.6).

#include "gtest/gtest.h"
#include "tests/engine/loop_harness.h"

namespace mneme {
namespace {

class IdempotenceTest : public testing::Test {
 protected:
  IdempotenceTest() {
    engine_.Create("s");
    engine_.Create("twin");  // is never interrupted
  }

  static GenerateRequest Sampled(const std::string& request_id, int64_t max_tokens) {
    GenerateRequest request = GreedyRequest(max_tokens, RandomTokens(30, 3));
    // Penalties: what was generated before a retry counts in them.
    request.sampling = {.temperature = 1.2F, .frequency_penalty = 1.5F, .seed = 11};
    request.seed_given = true;
    request.logprobs = 2;
    request.header.request_id = request_id;
    return request;
  }

  // Starts an append and cancels it when at least `tokens` of it are logged.
  void AppendInterrupted(const std::vector<int32_t>& ids, uint64_t tokens) {
    const auto call = engine_.StartAppend("s", ids, /*logprobs=*/true, "a");
    while (engine_.Info("s").position < tokens) ASSERT_TRUE(engine_.Step());
    ASSERT_TRUE(engine_.loop().Cancel({"test", "s"}, "a").ok());
    engine_.RunAll({call.get()});
    ASSERT_TRUE(EndedWith(*call, absl::StatusCode::kCancelled, ErrorReason::kCancelled));
    ASSERT_LT(engine_.Info("s").position, ids.size());
  }

  void GenerateInterrupted(const GenerateRequest& request, size_t tokens) {
    const auto call = engine_.StartGenerate("s", request);
    engine_.StepUntilTokens(call.get(), tokens);
    ASSERT_TRUE(engine_.loop().Cancel({"test", "s"}, request.header.request_id).ok());
    engine_.RunAll({call.get()});
    ASSERT_TRUE(EndedWith(*call, absl::StatusCode::kCancelled, ErrorReason::kCancelled));
  }

  void ExpectSameGeneration(const Call& actual, const Call& expected) {
    ASSERT_TRUE(EndedOk(actual));
    ASSERT_EQ(actual.TokenIds(), expected.TokenIds());
    for (size_t i = 0; i < actual.tokens.size(); ++i) {
      EXPECT_NEAR(*actual.tokens[i].logprob, *expected.tokens[i].logprob, 1e-4);
      ASSERT_EQ(actual.tokens[i].top_logprobs.size(), 2u);
      EXPECT_EQ(actual.tokens[i].top_logprobs[0].id, expected.tokens[i].top_logprobs[0].id);
    }
    EXPECT_EQ(actual.finished->completion_tokens, expected.finished->completion_tokens);
    EXPECT_EQ(actual.finished->chunks_closed, expected.finished->chunks_closed);
    EXPECT_EQ(actual.finished->position, expected.finished->position);
    EXPECT_EQ(actual.finished->version, expected.finished->version);
  }

  LoopHarness engine_{Golden("qwen3-window-yarn").dir()};
};

TEST_F(IdempotenceTest, ARetriedAppendReplaysItsProgressAndAppendsNothing) {
  const auto ids = RandomTokens(100, 1);
  const auto first = engine_.Append("s", ids, /*logprobs=*/true, "a");
  engine_.Append("s", {1, 2, 3});  // a complete request may be retried whatever came since
  const auto retry = engine_.Append("s", ids, /*logprobs=*/true, "a");
  EXPECT_TRUE(EndedOk(*retry));
  EXPECT_EQ(MaxDifference(retry->AppendLogProbs(), first->AppendLogProbs()), 0);
  EXPECT_EQ(retry->progress.back().position, 100u);
  EXPECT_EQ(retry->progress.back().version, first->progress.back().version);
  EXPECT_EQ(engine_.Info("s").position, 103u);
}

TEST_F(IdempotenceTest, ARetriedAppendGoesOnBehindWhatIsLogged) {
  const auto ids = RandomTokens(200, 1);
  const auto expected = engine_.Append("twin", ids, /*logprobs=*/true, "a");
  AppendInterrupted(ids, 100);
  const auto retry = engine_.Append("s", ids, /*logprobs=*/true, "a");
  EXPECT_TRUE(EndedOk(*retry));
  EXPECT_LT(MaxDifference(retry->AppendLogProbs(), expected->AppendLogProbs()), 1e-4);
  EXPECT_EQ(engine_.Info("s").position, 200u);
  EXPECT_EQ(engine_.Info("s").version, engine_.Info("twin").version);
  EXPECT_LT(RelativeDifference(engine_.Delta("s", 0), engine_.Delta("twin", 0)), 1e-4);
}

TEST_F(IdempotenceTest, AnotherPayloadUnderTheSameIdIsInvalid) {
  auto ids = RandomTokens(50, 1);
  engine_.Append("s", ids, /*logprobs=*/false, "a");
  const auto refuse = [&](const std::vector<int32_t>& other, bool logprobs) {
    const auto retry = engine_.Append("s", other, logprobs, "a");
    EXPECT_TRUE(
        EndedWith(*retry, absl::StatusCode::kInvalidArgument, ErrorReason::kPayloadMismatch));
    EXPECT_EQ(engine_.Info("s").position, 50u);
  };
  refuse(ids, /*logprobs=*/true);
  refuse({ids.begin(), ids.end() - 1}, false);
  auto longer = ids;
  longer.push_back(7);
  refuse(longer, false);
  ids[20] ^= 1;
  refuse(ids, false);
  GenerateRequest generate = GreedyRequest(3);
  generate.header.request_id = "a";
  EXPECT_TRUE(EndedWith(*engine_.Generate("s", generate), absl::StatusCode::kInvalidArgument,
                        ErrorReason::kPayloadMismatch));
  EXPECT_TRUE(EndedOk(*engine_.Append("s", {1}, false, "b")));
}

TEST_F(IdempotenceTest, AnInterruptedAppendWithAnotherContinuationIsInvalidOnlyWhereItIsLogged) {
  auto ids = RandomTokens(200, 1);
  AppendInterrupted(ids, 100);
  const uint64_t logged = engine_.Info("s").position;
  ids[10] ^= 1;
  EXPECT_TRUE(EndedWith(*engine_.Append("s", ids, true, "a"), absl::StatusCode::kInvalidArgument,
                        ErrorReason::kPayloadMismatch));
  EXPECT_EQ(engine_.Info("s").position, logged);
}

TEST_F(IdempotenceTest, AnInterruptedRequestIsAbortedOnceTheSessionWentOn) {
  const auto ids = RandomTokens(200, 1);
  AppendInterrupted(ids, 100);
  const uint64_t logged = engine_.Info("s").position;
  engine_.Append("s", {4});
  const auto retry = engine_.Append("s", ids, true, "a");
  EXPECT_TRUE(EndedWith(*retry, absl::StatusCode::kAborted, ErrorReason::kRequestSuperseded));
  EXPECT_EQ(GetErrorInfo(*retry->end).position, logged + 1);
}

TEST_F(IdempotenceTest, ARetriedGenerateReplaysItsTokens) {
  const auto first = engine_.Generate("s", Sampled("g", 20));
  engine_.Append("s", {1, 2});
  const auto retry = engine_.Generate("s", Sampled("g", 20));
  ExpectSameGeneration(*retry, *first);
  EXPECT_EQ(engine_.Info("s").position, 52u);
  GenerateRequest other = Sampled("g", 20);
  other.sampling.seed = 12;
  EXPECT_TRUE(EndedWith(*engine_.Generate("s", other), absl::StatusCode::kInvalidArgument,
                        ErrorReason::kPayloadMismatch));
}

TEST_F(IdempotenceTest, ARetriedGenerateGoesOnWhereItWasCancelled) {
  const auto expected = engine_.Generate("twin", Sampled("g", 40));
  GenerateInterrupted(Sampled("g", 40), 12);
  EXPECT_LT(engine_.Info("s").position, 70u);
  ExpectSameGeneration(*engine_.Generate("s", Sampled("g", 40)), *expected);
}

TEST_F(IdempotenceTest, AGenerateThatWasCancelledInItsInputGoesOn) {
  GenerateRequest request = Sampled("g", 20);
  request.input.ids = RandomTokens(150, 5);
  const auto expected = engine_.Generate("twin", request);
  const auto call = engine_.StartGenerate("s", request);
  engine_.Step();
  ASSERT_TRUE(engine_.loop().Cancel({"test", "s"}, "g").ok());
  engine_.RunAll({call.get()});
  ASSERT_EQ(engine_.Info("s").position, 64u);
  ExpectSameGeneration(*engine_.Generate("s", request), *expected);
}

TEST_F(IdempotenceTest, ASeedThatTheServerDrewIsReplayed) {
  GenerateRequest request = Sampled("g", 40);
  request.seed_given = false;
  request.sampling.temperature = 5;
  GenerateInterrupted(request, 12);
  const auto retry = engine_.Generate("s", request);
  // Two completed retries agree, so the second half came from the logged seed as the first did.
  ExpectSameGeneration(*engine_.Generate("s", request), *retry);
  request.seed_given = true;
  const auto& record = *(*engine_.loop().FindSession({"test", "s"}))->records().Find("g");
  request.sampling.seed = record.seed;
  ExpectSameGeneration(*engine_.Generate("twin", request), *retry);
}

TEST_F(IdempotenceTest, TheSameIdIsAbortedWhileTheFirstIsInFlight) {
  const auto first = engine_.StartAppend("s", RandomTokens(100, 1), false, "a");
  const auto queued = engine_.StartGenerate("s", Sampled("g", 3));
  engine_.Step();
  for (const std::string id : {"a", "g"}) {
    const auto second = engine_.StartAppend("s", RandomTokens(100, 1), false, id);
    second->Read();
    EXPECT_TRUE(EndedWith(*second, absl::StatusCode::kAborted, ErrorReason::kRequestInFlight));
    EXPECT_TRUE(GetErrorInfo(*second->end).retryable);
  }
  engine_.RunAll({first.get(), queued.get()});
  EXPECT_TRUE(EndedOk(*first));
  EXPECT_TRUE(EndedOk(*queued));
}

TEST_F(IdempotenceTest, LearnFalseLeavesNoRecord) {
  GenerateRequest probe = Sampled("p", 5);
  probe.learn = false;
  EXPECT_TRUE(EndedOk(*engine_.Generate("s", probe)));
  EXPECT_EQ((*engine_.loop().FindSession({"test", "s"}))->records().Find("p"), nullptr);
  probe.sampling.seed = 99;  // another payload is no contradiction
  EXPECT_TRUE(EndedOk(*engine_.Generate("s", probe)));
  EXPECT_TRUE(EndedOk(*engine_.Append("s", {1}, false, "p")));
  EXPECT_TRUE(EndedWith(*engine_.Generate("s", probe), absl::StatusCode::kInvalidArgument,
                        ErrorReason::kPayloadMismatch))
      << "the id is that of a logged request now";
}

TEST_F(IdempotenceTest, TheLast1024IdsAreRemembered) {
  for (int i = 0; i < 1025; ++i) engine_.Append("s", {i % 320}, false, "r" + std::to_string(i));
  const auto remembered = engine_.Append("s", {1}, false, "r1");
  EXPECT_TRUE(EndedOk(*remembered));
  EXPECT_EQ(engine_.Info("s").position, 1025u);
  EXPECT_TRUE(EndedOk(*engine_.Append("s", {0}, false, "r0")));
  EXPECT_EQ(engine_.Info("s").position, 1026u) << "r0 was forgotten and is a new request";
}

TEST_F(IdempotenceTest, ARetrysExpectationsAreComparedWithWhereTheRequestBegan) {
  engine_.Append("s", RandomTokens(20, 1));
  GenerateRequest request = Sampled("g", 10);
  request.header.expected_position = 20;
  request.header.expected_version = 1;
  const auto first = engine_.Generate("s", request);
  ASSERT_TRUE(EndedOk(*first));
  EXPECT_GT(engine_.Info("s").version, 1u);
  ExpectSameGeneration(*engine_.Generate("s", request), *first);
  request.header.expected_position = engine_.Info("s").position;
  EXPECT_TRUE(EndedWith(*engine_.Generate("s", request), absl::StatusCode::kAborted,
                        ErrorReason::kPositionMismatch));
}

TEST_F(IdempotenceTest, WithoutAnIdEveryRequestIsNew) {
  engine_.Append("s", {1, 2});
  engine_.Append("s", {1, 2});
  EXPECT_EQ(engine_.Info("s").position, 4u);
}

}  // namespace
}  // namespace mneme
