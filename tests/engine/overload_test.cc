// What happens when there is more to do than there is room for: who waits, who is refused, who is
// cut off (DESIGN §2.8, §2.9).

#include <string>

#include "gtest/gtest.h"
#include "tests/engine/loading/tiny_model.h"
#include "tests/engine/loop_harness.h"

namespace mneme {
namespace {

constexpr int64_t kPageBytes = 1024;  // of the small model: 16 positions

class OverloadTest : public testing::Test {
 protected:
  void Start(EngineOptions options) {
    TinyModel model;
    model.config["max_position_embeddings"] = 4096;
    model.Write(dir_.path());
    engine_ = std::make_unique<LoopHarness>(dir_.path(), HarnessOptions{.engine = options});
  }

  std::unique_ptr<Call> StartGenerate(int64_t tokens, const std::string& session = "") {
    return engine_->StartGenerate(session, GreedyRequest(tokens, {1}));
  }
  // A step, and what it gave to the calls.
  bool Step(const std::vector<Call*>& calls) {
    const bool progress = engine_->Step();
    for (Call* call : calls) call->Read();
    return progress;
  }

  TemporaryDirectory dir_;
  std::unique_ptr<LoopHarness> engine_;
};

TEST_F(OverloadTest, ALargeRequestThatWaitsForMemoryIsNotOvertaken) {
  Start({.max_step_tokens = 64, .cache_bytes = 40 * kPageBytes});
  const auto running = StartGenerate(300);
  engine_->Step();
  const auto large = StartGenerate(500);
  std::vector<std::unique_ptr<Call>> small;
  std::vector<Call*> calls = {running.get(), large.get()};
  for (int i = 0; Step(calls); ++i) {
    if (i < 200) {
      small.push_back(StartGenerate(5));
      calls.push_back(small.back().get());
    }
    for (const auto& call : small) {
      ASSERT_TRUE(call->tokens.empty() || !large->tokens.empty()) << "overtook the large one";
    }
    if (i == 10) {
      const EngineLoad load = engine_->loop().load();
      EXPECT_EQ(load.running_requests, 1);
      EXPECT_EQ(load.waiting_requests, 12) << "they wait for memory";
    }
  }
  for (const Call* call : calls) EXPECT_TRUE(EndedOk(*call));
}

TEST_F(OverloadTest, WhoWaitsForMemoryWaitsNoLongerThanItsDeadline) {
  Start({.max_step_tokens = 64, .cache_bytes = 40 * kPageBytes});
  const auto running = StartGenerate(500);
  engine_->Step();
  GenerateRequest request = GreedyRequest(400, {1});
  request.header.deadline = engine_->clock().Now() + absl::Seconds(5);
  const auto late = engine_->StartGenerate("", request);
  const auto behind = StartGenerate(5);
  for (int i = 0; i < 10; ++i) Step({running.get(), late.get(), behind.get()});
  EXPECT_TRUE(behind->tokens.empty());
  engine_->clock().Advance(absl::Seconds(5));
  Step({running.get(), late.get(), behind.get()});
  EXPECT_TRUE(
      EndedWith(*late, absl::StatusCode::kDeadlineExceeded, ErrorReason::kDeadlineExceeded));
  EXPECT_FALSE(behind->tokens.empty()) << "the next one's turn";
  engine_->RunAll({running.get(), behind.get()});
  EXPECT_TRUE(EndedOk(*running));
  EXPECT_TRUE(EndedOk(*behind));
}

TEST_F(OverloadTest, WhatCanNeverFitIsRefusedAtOnceAlsoBehindOthers) {
  Start({.max_step_tokens = 64, .cache_bytes = 40 * kPageBytes});
  engine_->Create("s");
  const auto before = StartGenerate(100, "s");
  const auto never = StartGenerate(2000, "s");
  never->Read();
  EXPECT_TRUE(EndedWith(*never, absl::StatusCode::kResourceExhausted, ErrorReason::kOutOfMemory));
  EXPECT_FALSE(GetErrorInfo(*never->end).retryable);
  const auto beyond = StartGenerate(5000, "s");
  beyond->Read();
  EXPECT_TRUE(EndedWith(*beyond, absl::StatusCode::kOutOfRange, ErrorReason::kContextExhausted));
  engine_->RunAll({before.get()});
  EXPECT_TRUE(EndedOk(*before));
}

TEST_F(OverloadTest, TheQueueIsBoundedInTokens) {
  Start({.max_step_tokens = 64, .max_queued_tokens = 100, .cache_bytes = 1 << 20});
  engine_->Create("s");
  const auto first = engine_->StartGenerate("s", GreedyRequest(3, RandomTokens(60, 1, 16)));
  const auto second = engine_->StartGenerate("s", GreedyRequest(3, RandomTokens(60, 1, 16)));
  second->Read();
  EXPECT_TRUE(EndedWith(*second, absl::StatusCode::kResourceExhausted, ErrorReason::kQueueFull));
  EXPECT_TRUE(GetErrorInfo(*second->end).retry_delay.has_value());
  engine_->RunAll({first.get()});
  EXPECT_TRUE(EndedOk(*engine_->Generate("s", GreedyRequest(3, RandomTokens(60, 1, 16)))));
}

TEST_F(OverloadTest, AReaderThatHasStoppedIsCutOffAfterItsLimitAndNoOther) {
  Start({.max_step_tokens = 64, .slow_reader_limit = absl::Seconds(30), .cache_bytes = 1 << 20});
  engine_->Create("s");
  const auto slow = StartGenerate(900, "s");
  const auto behind = StartGenerate(3, "s");
  const auto quick = StartGenerate(900);
  while (engine_->Step()) quick->Read();
  EXPECT_TRUE(slow->channel->EventsFull());
  EXPECT_EQ(engine_->loop().NextWake(), engine_->clock().Now() + absl::Seconds(30));
  engine_->clock().Advance(absl::Seconds(29));
  slow->channel->PopEvent();  // it reads: its time begins anew
  while (engine_->Step()) {
  }
  engine_->clock().Advance(absl::Seconds(29));
  EXPECT_FALSE(engine_->Step());
  engine_->clock().Advance(absl::Seconds(1));
  EXPECT_TRUE(engine_->Step());
  engine_->RunAll({slow.get(), behind.get(), quick.get()});
  EXPECT_TRUE(EndedWith(*slow, absl::StatusCode::kCancelled, ErrorReason::kSlowReader));
  EXPECT_EQ(*GetErrorInfo(*slow->end).position, 1 + 1 + slow->tokens.size());
  EXPECT_TRUE(EndedOk(*behind));
  EXPECT_TRUE(EndedOk(*quick));
}

TEST_F(OverloadTest, IdleSessionsAreKnownTheOneNotUsedForLongestFirst) {
  Start({.max_step_tokens = 64, .cache_bytes = 1 << 20});
  for (const std::string id : {"a", "b", "c", "empty"}) engine_->Create(id);
  for (const std::string id : {"b", "c", "a"}) {
    engine_->clock().Advance(absl::Seconds(1));
    engine_->Append(id, {1, 2, 3});
  }
  const auto running = StartGenerate(50, "c");
  engine_->Step();
  const std::vector<Session*> idle = engine_->loop().IdleSessions();
  ASSERT_EQ(idle.size(), 2u);
  EXPECT_EQ(idle[0]->key().id, "b");
  EXPECT_EQ(idle[1]->key().id, "a");
  EXPECT_EQ(engine_->loop().load().idle_sessions, 2);
  EXPECT_EQ(engine_->loop().load().idle_bytes,
            idle[0]->cache().held_bytes() + idle[1]->cache().held_bytes());
}

}  // namespace
}  // namespace mneme
