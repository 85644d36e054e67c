// Invariant: bytes reserved ≥ bytes held, equal at rest; who cannot be served now waits or is told
// so, and nobody holds memory while waiting for more (DESIGN §2.8, §2.9). LoopHarness::Step holds
// the inequality at every step of every test.

#include <future>

#include "engine/engine.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/forwarding_backend.h"
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

// --- Pools among which the memory is divided. ---

// A device whose memory is taken up when it is allocated, and which says how much there is.
class SmallDevice final : public ForwardingBackend {
 public:
  SmallDevice(std::unique_ptr<Backend> inner, std::vector<int64_t>* allocated)
      : ForwardingBackend(std::move(inner)), allocated_(*allocated) {}

  bool commits_on_touch() const override { return false; }
  int64_t FreeBytes() const override { return 1 << 20; }
  absl::StatusOr<DeviceBuffer> Allocate(int64_t bytes) override {
    allocated_.push_back(bytes);
    return ForwardingBackend::Allocate(bytes);
  }

 private:
  std::vector<int64_t>& allocated_;
};

// Four sessions of 64 tokens: 16 pages, 4 ΔW, 4 open chunks.
class DividedMemoryTest : public MemoryTest {
 protected:
  static constexpr int64_t kSessionBytes = 4 * kPageBytes + kLearningBytes;

  void SetUp() override {
    TinyModel model;
    model.config["max_position_embeddings"] = 1024;
    model.Write(dir_.path());
    HarnessOptions options = {
        .engine = {.max_step_tokens = 16, .cache_bytes = 4 * kSessionBytes, .session_tokens = 64}};
    options.wrap_backend = [this](std::unique_ptr<Backend> inner) {
      return std::make_unique<SmallDevice>(std::move(inner), &allocated_);
    };
    engine_ = std::make_unique<LoopHarness>(dir_.path(), options);
  }

  void CreateAndRead(const std::string& id, size_t tokens) {
    engine_->Create(id);
    ASSERT_TRUE(EndedOk(*engine_->Append(id, Tokens(tokens))));
  }

  std::vector<int64_t> allocated_;
};

TEST_F(DividedMemoryTest, EachPoolIsAllocatedAtTheStartAndNothingLater) {
  ASSERT_GE(allocated_.size(), 3u);
  const std::vector<int64_t> pools(allocated_.end() - 3, allocated_.end());
  EXPECT_EQ(pools, (std::vector<int64_t>{16 * kPageBytes, 4 * 384, 4 * 320}));
  const size_t at_start = allocated_.size();
  CreateAndRead("s", 40);
  EXPECT_TRUE(EndedOk(*engine_->Generate("s", GreedyRequest(20))));
  EXPECT_EQ(allocated_.size(), at_start);
}

TEST_F(DividedMemoryTest, AnEmptyPoolIsAReasonToTryAgainLater) {
  for (const std::string id : {"a", "b", "c", "d"}) CreateAndRead(id, 3);
  EXPECT_EQ(load().device_bytes_used, 4 * (kPageBytes + 320)) << "a third of the memory";
  engine_->Create("e");
  ExpectExhausted(*engine_->Append("e", Tokens(3)), /*retryable=*/true);
  engine_->Append("a", Tokens(1));  // closes its chunk
  EXPECT_TRUE(EndedOk(*engine_->Append("e", Tokens(3))));
}

TEST_F(DividedMemoryTest, ChunksAreLearntBesideAStreamIfTheirRowsAreInTheWay) {
  const auto stream = engine_->StartGenerate("", GreedyRequest(40, Tokens(1)));
  engine_->StepUntilTokens(stream.get(), 1);
  for (const std::string id : {"a", "b", "c"}) {
    engine_->Create(id);
    const auto append = engine_->StartAppend(id, Tokens(4));
    for (append->Read(); append->ends == 0 && engine_->Step();) append->Read();
    ASSERT_TRUE(EndedOk(*append));
  }
  engine_->Create("d");
  const auto append = engine_->StartAppend("d", Tokens(3));  // there is no block for its rows
  for (append->Read(); append->ends == 0 && engine_->Step();) append->Read();
  EXPECT_TRUE(EndedOk(*append));
  stream->Read();
  EXPECT_EQ(stream->ends, 0);
  EXPECT_LT(stream->tokens.size(), 20u);
}

TEST_F(DividedMemoryTest, WhatAPoolCanNeverHoldIsRefusedAtOnceWithItsName) {
  engine_->Create("s");
  const auto call = engine_->Generate("s", GreedyRequest(17 * 16 - 1, Tokens(1)));
  ExpectExhausted(*call, /*retryable=*/false);
  EXPECT_THAT(std::string(call->end->message()),
              testing::AllOf(testing::HasSubstr("keys and values"),
                             testing::HasSubstr("--session_tokens")));
  EXPECT_TRUE(EndedOk(*engine_->Generate("s", GreedyRequest(16 * 16 - 1, Tokens(1)))));
}

TEST_F(DividedMemoryTest, WaitingRequestsRunWhenAPoolHasBlocksAgain) {
  std::vector<std::unique_ptr<Call>> calls;
  std::vector<Call*> running;
  for (uint32_t i = 0; i < 9; ++i) {
    calls.push_back(engine_->StartGenerate("", GreedyRequest(10, Tokens(3 + i))));
    running.push_back(calls.back().get());
  }
  engine_->RunAll(running);
  for (const Call* call : running) EXPECT_TRUE(EndedOk(*call));
  EXPECT_EQ(load().device_bytes_used, 0);
  EXPECT_EQ(load().device_bytes_reserved, 0);
}

TEST_F(DividedMemoryTest, AShareOfWhatTheModelLeavesFreeIsTheDefault) {
  auto backend = std::make_unique<SmallDevice>(
      *CreateTestBackend(BackendKind::kCpuFloat32, /*cpu_threads=*/1), &allocated_);
  ServedModel model = LoadServedModel(dir_.path(), /*with_tokenizer=*/false, *backend);
  const Clock clock;
  StatsSink stats;
  const auto engine =
      Engine::Create({.max_step_tokens = 16, .device_memory_fraction = 0.25, .session_tokens = 64},
                     std::move(backend), std::move(model), clock, stats);
  ASSERT_TRUE(engine.ok()) << engine.status();
  std::promise<EngineLoad> promise;
  (*engine)->GetLoad([&promise](absl::StatusOr<EngineLoad> load) { promise.set_value(*load); });
  EXPECT_EQ(promise.get_future().get().device_bytes_limit, 1 << 18);
}

}  // namespace
}  // namespace mneme
