// Turns join to a log that can only grow: BOS only at position 0, and an end of turn that is logged
// is not repeated (DESIGN §2.5, §3).

#include "engine/jobs/input_resolver.h"
#include "gtest/gtest.h"
#include "tests/engine/loop_harness.h"

namespace mneme {
namespace {

using Tokens = std::vector<int32_t>;

constexpr int64_t kVocabulary = 100;

TEST(InputResolverTest, BosComesOnlyAtPositionZero) {
  InputResolver resolver({}, 0, std::nullopt, kVocabulary);
  EXPECT_EQ(*resolver.Resolve({.ids = {5}, .bos = 1}), (Tokens{1, 5}));
  EXPECT_EQ(*resolver.Resolve({.ids = {6}, .bos = 1}), (Tokens{6}));
  EXPECT_EQ(resolver.position(), 3);
}

TEST(InputResolverTest, BosThatTheInputBeginsWithIsNotDoubled) {
  InputResolver resolver({}, 0, std::nullopt, kVocabulary);
  EXPECT_EQ(*resolver.Resolve({.ids = {1, 5}, .bos = 1}), (Tokens{1, 5}));
}

TEST(InputResolverTest, AnOpenTurnIsEndedOnceByWhatOfItsEndIsMissing) {
  const std::vector<std::pair<Tokens, Tokens>> cases = {
      {{7, 8, 9}, {20, 21, 50}},    // nothing of the end is logged
      {{7, 8, 20}, {21, 50}},       // half of it
      {{7, 20, 21}, {50}},          // all of it
      {{20, 21, 8}, {20, 21, 50}},  // not at the end of the log
      {{}, {20, 21, 50}}};          // the assistant has said nothing
  for (const auto& [said, expected] : cases) {
    Tokens log = {20, 21, 3};  // what stands before the turn is not of it
    log.insert(log.end(), said.begin(), said.end());
    InputResolver resolver(log, static_cast<int64_t>(log.size()), 3, kVocabulary);
    EXPECT_EQ(*resolver.Resolve({.ids = {50}, .turn_end = {20, 21}}), expected);
    EXPECT_EQ(resolver.open_turn(), std::nullopt);
    EXPECT_EQ(*resolver.Resolve({.ids = {51}, .turn_end = {20, 21}}), (Tokens{51}));
  }
}

TEST(InputResolverTest, TokensBeforeTheTurnAreNotTakenForItsEnd) {
  const Tokens log = {3, 20, 21};
  InputResolver resolver(log, 3, 3, kVocabulary);
  EXPECT_EQ(*resolver.Resolve({.ids = {50}, .turn_end = {20, 21}}), (Tokens{20, 21, 50}));
}

TEST(InputResolverTest, APieceThatOpensATurnLeavesItOpenForTheNext) {
  InputResolver resolver({}, 0, std::nullopt, kVocabulary);
  EXPECT_EQ(*resolver.Resolve({.ids = {1, 20}, .turn_end = {20, 21}, .opens_turn = true}),
            (Tokens{1, 20}));
  EXPECT_EQ(resolver.open_turn(), 2);
  // Raw ids belong to the turn.
  EXPECT_EQ(*resolver.Resolve({.ids = {9, 20}}), (Tokens{9, 20}));
  EXPECT_EQ(resolver.open_turn(), 2);
  EXPECT_EQ(*resolver.Resolve({.ids = {2, 20}, .turn_end = {20, 21}, .opens_turn = true}),
            (Tokens{21, 2, 20}));
  EXPECT_EQ(resolver.open_turn(), 7);
  EXPECT_EQ(*resolver.Resolve({.ids = {3}, .turn_end = {20, 21}}), (Tokens{20, 21, 3}))
      << "the second turn's prefix is no part of its end";
}

TEST(InputResolverTest, ABadPieceTakesNothing) {
  InputResolver resolver({}, 0, std::nullopt, kVocabulary);
  EXPECT_FALSE(resolver.Resolve({.ids = {5, 100}, .bos = 1, .opens_turn = true}).ok());
  EXPECT_FALSE(resolver.Resolve({.bos = 1}).ok());
  EXPECT_EQ(resolver.position(), 0);
  EXPECT_EQ(resolver.open_turn(), std::nullopt);
}

// A session of a golden model whose turns are made of plain ids: prefix 40 41, end 42 43.
class TurnsTest : public testing::Test {
 protected:
  TurnsTest() { engine_.Create("s"); }

  static InputPiece Chat(int32_t content) {
    return {.ids = {content, 40, 41}, .bos = 1, .turn_end = {42, 43}, .opens_turn = true};
  }
  static GenerateRequest Ask(int32_t content, int64_t max_tokens) {
    GenerateRequest request = GreedyRequest(max_tokens);
    request.input = Chat(content);
    return request;
  }
  static void Force(GenerateRequest& request, int32_t id) {
    request.sampling.logit_bias = {{id, 1000.0F}};
  }
  Tokens Log() { return (*engine_.loop().FindSession({"test", "s"}))->log(); }
  static void Extend(Tokens& log, const Tokens& tokens) {
    log.insert(log.end(), tokens.begin(), tokens.end());
  }

  LoopHarness engine_{Golden("llama-input-target").dir()};
};

TEST_F(TurnsTest, ATurnThatEndedByLengthIsClosedByTheNext) {
  Tokens log = {1, 50, 40, 41};
  Extend(log, engine_.Generate("s", Ask(50, 5))->TokenIds());
  engine_.Generate("s", Ask(51, 1));
  Extend(log, {42, 43, 51, 40, 41});
  Tokens logged = Log();
  logged.pop_back();  // the second answer
  EXPECT_EQ(logged, log);
}

TEST_F(TurnsTest, AStopTokenThatBeginsTheEndOfTurnIsNotRepeated) {
  GenerateRequest request = Ask(50, 5);
  Force(request, 42);
  request.stop_token_ids = {42};
  const auto call = engine_.Generate("s", request);
  EXPECT_EQ(call->TokenIds(), (Tokens{42}));
  EXPECT_EQ(call->finished->reason, FinishReason::kStop);
  engine_.Append("s", {9});  // ids alone do not end the turn
  engine_.Append("s", {42});
  const auto next = engine_.StartAppendStream("s", {});
  next->channel->PushInput(Chat(51));
  next->channel->CloseInput();
  engine_.RunAll({next.get()});
  EXPECT_EQ(Log(), (Tokens{1, 50, 40, 41, 42, 9, 42, 43, 51, 40, 41}));
}

TEST_F(TurnsTest, ARetriedTurnGetsTheSameTokens) {
  engine_.Generate("s", Ask(50, 5));
  GenerateRequest request = Ask(51, 6);
  request.header.request_id = "r";
  const auto first = engine_.Generate("s", request);
  const Tokens log = Log();
  const auto retry = engine_.Generate("s", request);
  EXPECT_TRUE(EndedOk(*retry));
  EXPECT_EQ(retry->TokenIds(), first->TokenIds());
  EXPECT_EQ(retry->finished->prompt_tokens, 5u) << "end of turn, content, prefix";
  EXPECT_EQ(Log(), log);
}

TEST_F(TurnsTest, ATurnIsOpenOnlyOnceItsPrefixIsLogged) {
  const auto call = engine_.StartAppendStream("s", {.header = {.request_id = "a"}});
  InputPiece piece = Chat(50);
  piece.ids = RandomTokens(100, 1);  // two steps
  call->channel->PushInput(piece);
  engine_.Step();
  ASSERT_EQ(engine_.Info("s").position, 64u);
  ASSERT_TRUE(engine_.loop().Cancel({"test", "s"}, "a").ok());
  engine_.RunAll({call.get()});
  EXPECT_TRUE(EndedOk(*engine_.Generate("s", Ask(51, 1))));
  Tokens expected = {1};
  Extend(expected, RandomTokens(63, 1));
  Extend(expected, {51, 40, 41});
  Tokens log = Log();
  log.pop_back();
  EXPECT_EQ(log, expected) << "no turn was open, so none is ended";
}

TEST_F(TurnsTest, AProbesTurnLeavesTheSessionsTurnAsItWas) {
  engine_.Generate("s", Ask(50, 5));
  const auto open_turn = (*engine_.loop().FindSession({"test", "s"}))->open_turn();
  ASSERT_EQ(open_turn, 4);
  GenerateRequest probe = Ask(51, 5);
  probe.learn = false;
  const auto call = engine_.Generate("s", probe);
  EXPECT_EQ(call->finished->prompt_tokens, 5u);
  EXPECT_EQ((*engine_.loop().FindSession({"test", "s"}))->open_turn(), open_turn);
}

}  // namespace
}  // namespace mneme
