// Invariant: after a CUDA error nothing is known, so the stream, and with it the engine, refuses
// all that comes (DESIGN §2.11). The error is real: a kernel reads memory that is not there. It
// ends what its process can do with CUDA, so each test is a process of its own.

#include <atomic>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/failing_backend.h"
#include "tests/engine/loop_harness.h"

namespace mneme {
namespace {

using testing::HasSubstr;

class CudaDeviceFaultTest : public testing::Test {
 protected:
  void SetUp() override {
    testing::FLAGS_gtest_death_test_style = "threadsafe";  // CUDA does not survive a fork
    MNEME_SKIP_WITHOUT_BACKEND(BackendKind::kCudaBFloat16);
  }
};

void BreakAStream() {
  const auto backend = *CreateTestBackend(BackendKind::kCudaBFloat16, 1);
  const DeviceBuffer buffer = *backend->Allocate(64);
  auto stream = *backend->CreateStream();
  const auto other = *backend->CreateStream();
  stream->CopyRows(MissingMatrix(1), MissingMatrix(2));
  const absl::Status failure = stream->Synchronize();
  EXPECT_EQ(failure.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(failure.message()), HasSubstr("illegal memory access"));
  float value = 7;
  stream->CopyToHost(&value, buffer.data(), sizeof value);
  EXPECT_EQ(stream->Synchronize(), failure);
  EXPECT_EQ(value, 7) << "a failed stream does nothing";
  EXPECT_EQ(other->Synchronize().code(), absl::StatusCode::kInternal);
  EXPECT_FALSE(backend->Allocate(64).ok());
  EXPECT_FALSE(backend->CreateStream().ok());
}

TEST_F(CudaDeviceFaultTest, AStreamReportsItFromThenOn) {
  EXPECT_EXIT((BreakAStream(), EndDeathTest(0)), testing::ExitedWithCode(0), "");
}

// `before`: tokens that are generated before the device fails, in steps that are repeated.
void BreakAnEngine(size_t before) {
  std::atomic<bool> broken = false;
  LoopHarness engine(
      Golden("qwen3-window-yarn").dir(),
      {.backend = BackendKind::kCudaBFloat16, .wrap_backend = [&](std::unique_ptr<Backend> inner) {
         return MakeFaultingBackend(std::move(inner), &broken);
       }});
  engine.Create("s");
  engine.Create("t");
  const auto running = engine.StartGenerate("s", GreedyRequest(20, {1}));
  const auto queued = engine.StartAppend("s", {1, 2});
  const auto waiting = engine.StartAppendStream("t", {});
  engine.StepUntilTokens(running.get(), before);
  broken = true;
  engine.RunAll({running.get(), queued.get(), waiting.get()});
  broken = false;  // it does not come back
  const auto later = engine.Append("s", {1});
  const auto throw_away = engine.Generate("", GreedyRequest(1, {1}));
  for (const Call* call :
       {running.get(), queued.get(), waiting.get(), later.get(), throw_away.get()}) {
    EXPECT_TRUE(EndedWith(*call, absl::StatusCode::kUnavailable, ErrorReason::kBackendFailed));
  }
  EXPECT_LT(running->tokens.size(), 20u);
  EXPECT_EQ(engine.loop().failure().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(engine.loop().CreateSession({"test", "u"}, {}).status().code(),
            absl::StatusCode::kUnavailable);
}

TEST_F(CudaDeviceFaultTest, EveryRequestOfAnEngineEndsWithUnavailable) {
  EXPECT_EXIT((BreakAnEngine(0), EndDeathTest(0)), testing::ExitedWithCode(0), "");
  EXPECT_EXIT((BreakAnEngine(8), EndDeathTest(0)), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace mneme
