// Invariant: what a backend needs besides the sessions' memory it takes before the first request,
// and the steps by which it does leave no trace.

#include "engine/model/warm_up.h"

#include <cstdlib>

#include "gtest/gtest.h"
#include "tests/engine/forwarding_backend.h"
#include "tests/engine/loop_harness.h"
#include "tests/engine/repeating_backend.h"

namespace mneme {
namespace {

constexpr int64_t kMaxStepTokens = 256;  // chunks are of 64

// Kernels take memory when they are loaded: all at once, so that nothing is seen but what is
// allocated.
const int kLoadsKernelsAtOnce = setenv("CUDA_MODULE_LOADING", "EAGER", 1);

// A device whose memory is divided at the start.
class DividedDevice final : public ForwardingBackend {
 public:
  DividedDevice(std::unique_ptr<Backend> inner, int64_t* allocations)
      : ForwardingBackend(std::move(inner)), allocations_(*allocations) {}

  bool commits_on_touch() const override { return false; }
  absl::StatusOr<DeviceBuffer> Allocate(int64_t bytes) override {
    ++allocations_;
    return ForwardingBackend::Allocate(bytes);
  }

 private:
  int64_t& allocations_;
};

TEST(WarmUpWithoutDevice, DoesNothing) {
  RepeatCounts counts;
  HarnessOptions options;
  options.warm_up = true;
  options.wrap_backend = [&counts](std::unique_ptr<Backend> inner) {
    return MakeRepeatingBackend(std::move(inner), &counts);
  };
  const LoopHarness engine(ModelDir(kDemoModel), options);
  EXPECT_EQ(counts.recorded, 0);
}

class WarmUpTest : public testing::TestWithParam<BackendKind> {
 protected:
  void SetUp() override {
    ASSERT_EQ(kLoadsKernelsAtOnce, 0);
    MNEME_SKIP_WITHOUT_BACKEND(GetParam());
  }

  std::unique_ptr<LoopHarness> MakeEngine(bool warm_up, int64_t cache_bytes = 256 << 20) {
    HarnessOptions options;
    options.engine.max_step_tokens = kMaxStepTokens;
    options.engine.cache_bytes = cache_bytes;
    options.engine.session_tokens = 512;
    options.backend = GetParam();
    options.warm_up = warm_up;
    options.wrap_backend = [this](std::unique_ptr<Backend> inner) {
      auto device = std::make_unique<DividedDevice>(std::move(inner), &allocations_);
      device_ = device.get();
      return MakeRepeatingBackend(std::move(device), &counts_);
    };
    return std::make_unique<LoopHarness>(ModelDir(kDemoModel), options);
  }

  // Long and short prefill, chunks that close together, and streams beside one another.
  static std::vector<std::unique_ptr<Call>> RunRequests(LoopHarness& engine) {
    std::vector<std::unique_ptr<Call>> calls;
    std::vector<Call*> running;
    for (uint32_t i = 0; i < 12; ++i) {
      const std::string id = "s" + std::to_string(i);
      engine.Create(id);
      const size_t tokens = i == 0 ? 700 : i < 8 ? 64 : 3 * i;
      calls.push_back(engine.StartAppend(id, RandomTokens(tokens, i)));
      running.push_back(calls.back().get());
      GenerateRequest request = GreedyRequest(70);
      request.logprobs = 2;
      calls.push_back(engine.StartGenerate(id, request));
      running.push_back(calls.back().get());
    }
    engine.RunAll(running);
    return calls;
  }

  int64_t allocations_ = 0;
  RepeatCounts counts_;
  const Backend* device_ = nullptr;  // of the engine that was made last
};

TEST_P(WarmUpTest, RequestsTakeNoMoreMemoryOfTheDevice) {
  const auto engine = MakeEngine(/*warm_up=*/true);
  EXPECT_EQ(engine->loop().load().device_bytes_used, 0);
  EXPECT_EQ(engine->loop().load().device_bytes_reserved, 0);
  const int64_t allocations = allocations_, free_bytes = device_->FreeBytes();
  const int64_t recorded = counts_.recorded, repeated = counts_.repeated;
  EXPECT_GT(recorded, 4);
  for (const auto& call : RunRequests(*engine)) EXPECT_TRUE(EndedOk(*call));
  EXPECT_EQ(allocations_, allocations);
  EXPECT_EQ(counts_.recorded, recorded) << "a step was not recorded before";
  EXPECT_GT(counts_.repeated, repeated);
  // The driver gives memory in pieces of 2 MiB.
  if (IsCuda(GetParam())) {
    EXPECT_GE(device_->FreeBytes(), free_bytes - (int64_t{2} << 20));
  }
}

TEST_P(WarmUpTest, LeavesNoTrace) {
  const auto warm = MakeEngine(/*warm_up=*/true), cold = MakeEngine(/*warm_up=*/false);
  const auto after = RunRequests(*warm), before = RunRequests(*cold);
  ASSERT_EQ(after.size(), before.size());
  for (size_t i = 0; i < after.size(); ++i) {
    SCOPED_TRACE(i);
    // A GPU's products may have been found to be faster in another order of sums.
    ExpectSameTokens(*after[i], *before[i], IsCuda(GetParam()) ? 0.12 : 0);
  }
}

TEST_P(WarmUpTest, DoesWhatFits) {
  const auto engine = MakeEngine(/*warm_up=*/true, int64_t{20} << 20);  // two sessions
  engine->Create("s");
  EXPECT_TRUE(EndedOk(*engine->Append("s", RandomTokens(40, 1))));
  EXPECT_TRUE(EndedOk(*engine->Generate("s", GreedyRequest(10))));
}

INSTANTIATE_TEST_SUITE_P(Backends, WarmUpTest,
                         testing::Values(BackendKind::kCpuFloat32, BackendKind::kCudaFloat32,
                                         BackendKind::kCudaBFloat16),
                         [](const auto& param) { return NameOf(param.param); });

}  // namespace
}  // namespace mneme
