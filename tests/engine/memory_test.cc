// Invariant: bytes reserved ≥ bytes held, equal at rest; who cannot be served now waits or is told
// so, and nobody holds memory while waiting for more (DESIGN §2.8, §2.9). LoopHarness::Step holds
// the inequality at every step of every test.

#include "gtest/gtest.h"
#include "tests/engine/loading/tiny_model.h"
#include "tests/engine/loop_harness.h"

namespace mneme {
namespace {

// The tiny model: a page of 16 positions takes 1,024 bytes, ΔW 384, an open chunk's rows 320.
constexpr int64_t kPageBytes = 1024;
constexpr int64_t kLearningBytes = 384 + 320;

class MemoryTest : public testing::Test {
 protected:
  void SetUp() override { UseModel(TinyModel()); }

  void UseModel(const TinyModel& model) {
    model.Write(dir_.path());
    engine_ = std::make_unique<LoopHarness>(
        dir_.path(),
        HarnessOptions{.engine = {.max_step_tokens = 16, .cache_bytes = 8 * kPageBytes}});
  }

  static std::vector<int32_t> Tokens(size_t count) { return RandomTokens(count, 1, 16); }
  EngineLoad load() { return engine_->loop().load(); }

  static void ExpectExhausted(const Call& call, bool retryable) {
    EXPECT_TRUE(EndedWith(call, absl::StatusCode::kResourceExhausted, ErrorReason::kOutOfMemory));
    EXPECT_EQ(GetErrorInfo(*call.end).retryable, retryable);
    EXPECT_EQ(GetErrorInfo(*call.end).retry_delay.has_value(), retryable);
  }

  TemporaryDirectory dir_;
  std::unique_ptr<LoopHarness> engine_;
};

TEST_F(MemoryTest, ASessionHoldsPagesForItsPositionsAndWhatItLearnt) {
  engine_->Create("s");
  EXPECT_EQ(engine_->Info("s").device_bytes, 0);
  engine_->Append("s", Tokens(3));
  EXPECT_EQ(engine_->Info("s").device_bytes, kPageBytes + 320);
  engine_->Append("s", Tokens(1));
  EXPECT_EQ(engine_->Info("s").device_bytes, kPageBytes + 384) << "no chunk is open";
  engine_->Append("s", Tokens(30));
  EXPECT_EQ(engine_->Info("s").device_bytes, 3 * kPageBytes + kLearningBytes);
  EXPECT_EQ(load().device_bytes_used, 3 * kPageBytes + kLearningBytes);
}

TEST_F(MemoryTest, DeletingEverythingLeavesNothing) {
  for (const std::string id : {"a", "b"}) {
    engine_->Create(id);
    engine_->Append(id, Tokens(20));
  }
  engine_->Generate("", GreedyRequest(10, Tokens(3)));
  for (const std::string id : {"a", "b"}) {
    ASSERT_TRUE(engine_->loop().DeleteSession({"test", id}).ok());
  }
  EXPECT_EQ(load().device_bytes_used, 0);
  EXPECT_EQ(load().device_bytes_reserved, 0);
  EXPECT_EQ(load().host_bytes, 0);
  EXPECT_EQ(load().sessions, 0);
}

TEST_F(MemoryTest, WhatCanNeverFitIsRefusedAtOnce) {
  engine_->Create("s");
  const auto call = engine_->Generate("s", GreedyRequest(200, Tokens(1)));
  ExpectExhausted(*call, /*retryable=*/false);
  EXPECT_TRUE(call->tokens.empty());
  EXPECT_TRUE(EndedOk(*engine_->Generate("s", GreedyRequest(20, Tokens(1)))));
}

TEST_F(MemoryTest, AnAppendThatOutgrowsTheMemoryEndsWhereItStands) {
  engine_->Create("s");
  const auto call = engine_->Append("s", Tokens(200));
  ExpectExhausted(*call, /*retryable=*/false);
  EXPECT_EQ(GetErrorInfo(*call->end).position, 112u) << "seven pages and what was learnt";
  EXPECT_EQ(engine_->Info("s").position, 112u);
  ASSERT_TRUE(engine_->loop().DeleteSession({"test", "s"}).ok());
  EXPECT_TRUE(EndedOk(*engine_->Generate("", GreedyRequest(1, {1}))));
}

TEST_F(MemoryTest, WhatDoesNotFitNowWaitsForARunningRequestAndThenRuns) {
  engine_->Create("s");
  const auto first = engine_->StartGenerate("", GreedyRequest(80, Tokens(3)));  // 6 pages
  engine_->StepUntilTokens(first.get(), 5);
  const auto second = engine_->StartGenerate("s", GreedyRequest(40, Tokens(3)));  // 3 pages
  engine_->StepUntilTokens(first.get(), 70);
  second->Read();
  EXPECT_EQ(second->ends, 0);
  EXPECT_TRUE(second->tokens.empty());
  engine_->RunAll({first.get(), second.get()});
  EXPECT_TRUE(EndedOk(*first));
  EXPECT_TRUE(EndedOk(*second));
  EXPECT_EQ(second->tokens.size(), 40u);
}

TEST_F(MemoryTest, AGenerationThatHasBegunNeverWaitsForMemory) {
  engine_->Create("s");
  const auto generation = engine_->StartGenerate("", GreedyRequest(60, Tokens(3)));  // 4 pages
  engine_->Step();
  const auto append = engine_->StartAppend("s", Tokens(100));  // wants all it can get
  engine_->RunAll({generation.get(), append.get()});
  EXPECT_TRUE(EndedOk(*generation));
  EXPECT_TRUE(EndedOk(*append)) << "it waited for the generation's end";
}

TEST_F(MemoryTest, IdleSessionsThatHoldAllAreAReasonToTryAgainLater) {
  engine_->Create("idle");
  engine_->Create("s");
  engine_->Append("idle", Tokens(90));
  const auto refused = engine_->Generate("s", GreedyRequest(40, Tokens(3)));
  ExpectExhausted(*refused, /*retryable=*/true);
  EXPECT_EQ(GetErrorInfo(*refused->end).position, 0u);
  ASSERT_TRUE(engine_->loop().DeleteSession({"test", "idle"}).ok());
  EXPECT_TRUE(EndedOk(*engine_->Generate("s", GreedyRequest(40, Tokens(3)))));
}

TEST_F(MemoryTest, AnAppendThatCannotGetItsNextPieceSaysWhereItStandsAndGoesOnLater) {
  engine_->Create("idle");
  engine_->Create("s");
  engine_->Append("idle", Tokens(60));
  const auto refused = engine_->Append("s", Tokens(80), /*logprobs=*/false, "a");
  ExpectExhausted(*refused, /*retryable=*/true);
  EXPECT_EQ(GetErrorInfo(*refused->end).position, 32u);
  ASSERT_TRUE(engine_->loop().DeleteSession({"test", "idle"}).ok());
  EXPECT_TRUE(EndedOk(*engine_->Append("s", Tokens(80), /*logprobs=*/false, "a")));
  EXPECT_EQ(engine_->Info("s").position, 80u);
}

TEST_F(MemoryTest, AppendsThatWaitForInputHoldNothingBack) {
  engine_->Create("waiting");
  engine_->Create("s");
  const auto waiting = engine_->StartAppendStream("waiting", {});
  waiting->channel->PushInput({.ids = Tokens(20)});
  engine_->RunAll({waiting.get()});
  EXPECT_EQ(load().device_bytes_reserved, load().device_bytes_used);
  EXPECT_TRUE(EndedOk(*engine_->Generate("s", GreedyRequest(60, Tokens(3)))));
  waiting->channel->CloseInput();
  engine_->RunAll({waiting.get()});
  EXPECT_TRUE(EndedOk(*waiting));
}

TEST_F(MemoryTest, WithWindowsASessionsBytesStayBounded) {
  TinyModel model;
  model.config["use_sliding_window"] = true;
  model.config["sliding_window"] = 8;
  model.config["max_window_layers"] = 0;
  UseModel(model);
  engine_->Create("s");
  const auto append = engine_->StartAppend("s", Tokens(1000));
  // Between steps: the window's pages, of which two are begun and not ended.
  while (engine_->Step()) {
    EXPECT_LE(load().device_bytes_used, 2 * kPageBytes + kLearningBytes);
  }
  append->Read();
  EXPECT_TRUE(EndedOk(*append));
  EXPECT_TRUE(EndedOk(*engine_->Generate("s", GreedyRequest(300))));
  EXPECT_LE(engine_->Info("s").device_bytes, 2 * kPageBytes + kLearningBytes);
}

TEST_F(MemoryTest, FrozenSessionsHoldNoFastWeights) {
  engine_->Create("s", {.freeze = true});
  engine_->Append("s", Tokens(16));
  EXPECT_EQ(engine_->Info("s").device_bytes, kPageBytes);
}

}  // namespace
}  // namespace mneme
