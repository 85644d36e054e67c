// Learning controls (DESIGN §1): a control logged at position q governs the chunks whose last index
// is ≥ q, and each does what its formula says.

#include <cmath>

#include "gtest/gtest.h"
#include "tests/engine/loop_harness.h"

namespace mneme {
namespace {

constexpr int64_t kChunk = 16;  // the fixture's

double Norm(const std::vector<float>& values) {
  double sum = 0;
  for (float value : values) sum += static_cast<double>(value) * value;
  return std::sqrt(sum);
}

std::vector<float> Combine(double a, const std::vector<float>& x, double b,
                           const std::vector<float>& y) {
  std::vector<float> result(x.size());
  for (size_t i = 0; i < x.size(); ++i) result[i] = static_cast<float>(a * x[i] + b * y[i]);
  return result;
}

class LearningControlsTest : public testing::TestWithParam<BackendKind> {
 protected:
  void SetUp() override {
    MNEME_SKIP_WITHOUT_BACKEND(GetParam());
    engine_.emplace(Golden("qwen3-hidden-target").dir(), HarnessOptions{.backend = GetParam()});
  }

  std::vector<int32_t> Part(int64_t begin, int64_t end) const {
    return {tokens_.begin() + begin, tokens_.begin() + end};
  }
  // Reads [begin, end) of the stream.
  void Read(const std::string& id, int64_t begin, int64_t end) {
    ASSERT_TRUE(EndedOk(*engine_->Append(id, Part(begin, end))));
  }
  // ΔW of the first TTT layer, whose updates do not depend on earlier ones: no layer below learns.
  std::vector<float> DeltaAfter(const LearningControls& controls, int64_t tokens) {
    const std::string id = "d" + std::to_string(++sessions_);
    engine_->Create(id, controls);
    Read(id, 0, tokens);
    return engine_->Delta(id, 0);
  }

  std::optional<LoopHarness> engine_;
  const std::vector<int32_t> tokens_ = Golden("qwen3-hidden-target").tokens();
  int sessions_ = 0;
};

TEST_P(LearningControlsTest, TheFixturesChunkIsWhatTheseTestsAssume) {
  ASSERT_EQ(engine_->model().config.ttt->chunk, kChunk);
}

TEST_P(LearningControlsTest, AFreezeDoesNotReachAChunkThatTheLogHasClosedButNobodyComputed) {
  for (const std::string id : {"frozen-late", "never"}) {
    engine_->Create(id);
    Read(id, 0, kChunk - 2);
    engine_->Generate(id, GreedyRequest(2));  // the second is logged and not computed
    ASSERT_EQ(engine_->Info(id).version, 1u);
    ASSERT_TRUE(engine_->Delta(id, 0).empty());
  }
  engine_->SetControls("frozen-late", {.freeze = true});
  Read("frozen-late", 0, 2 * kChunk);
  Read("never", 0, kChunk - 1);
  EXPECT_FALSE(engine_->Delta("never", 0).empty());
  EXPECT_LT(RelativeDifference(engine_->Delta("frozen-late", 0), engine_->Delta("never", 0)), 1e-5)
      << "the first chunk is learnt, the second is not";
}

TEST_P(LearningControlsTest, AFreezeGovernsTheChunkWhoseLastTokenIsLoggedAfterIt) {
  engine_->Create("s");
  Read("s", 0, kChunk - 3);
  engine_->Generate("s", GreedyRequest(2));
  ASSERT_EQ(engine_->Info("s").position, static_cast<uint64_t>(kChunk - 1));
  engine_->SetControls("s", {.freeze = true});
  Read("s", 0, 1);
  EXPECT_EQ(engine_->Info("s").version, 1u) << "a frozen chunk closes too";
  EXPECT_TRUE(engine_->Delta("s", 0).empty());
}

TEST_P(LearningControlsTest, RowsReadWhileFrozenCountOnceUnfrozenWithinTheChunk) {
  engine_->Create("s");
  engine_->Create("never");
  for (const std::string id : {"s", "never"}) {
    Read(id, 0, 5);
    if (id == "s") engine_->SetControls(id, {.freeze = true});
    Read(id, 5, 12);
    if (id == "s") engine_->SetControls(id, {});
    Read(id, 12, 40);
  }
  ASSERT_FALSE(engine_->Delta("s", 0).empty());
  EXPECT_EQ(engine_->Delta("s", 0), engine_->Delta("never", 0));
}

TEST_P(LearningControlsTest, OnlyTheControlAtTheLastTokenOfAChunkCounts) {
  engine_->Create("s");
  Read("s", 0, 8);
  engine_->SetControls("s", {.freeze = true});
  Read("s", 8, kChunk + 4);  // the first chunk closes frozen
  EXPECT_TRUE(engine_->Delta("s", 0).empty());
  engine_->SetControls("s", {});
  Read("s", kChunk + 4, 2 * kChunk);

  engine_->Create("reference", {.freeze = true});
  Read("reference", 0, 2 * kChunk - 1);
  engine_->SetControls("reference", {});
  Read("reference", 2 * kChunk - 1, 2 * kChunk);
  EXPECT_LT(RelativeDifference(engine_->Delta("s", 0), engine_->Delta("reference", 0)), 1e-4);
  EXPECT_GT(RelativeDifference(engine_->Delta("s", 0), DeltaAfter({}, 2 * kChunk)), 0.1);
}

TEST_P(LearningControlsTest, AControlOfAPieceThatSpansChunksGovernsAllOfThem) {
  const auto one = DeltaAfter({.lr_scale = 0.5F}, 3 * kChunk);  // one step
  engine_->Create("s", {.lr_scale = 0.5F});
  for (int64_t at = 0; at < 3 * kChunk; ++at) Read("s", at, at + 1);
  EXPECT_LT(RelativeDifference(engine_->Delta("s", 0), one), 1e-4);
}

TEST_P(LearningControlsTest, LrScaleMultipliesTheUpdate) {
  const auto full = DeltaAfter({}, kChunk);
  EXPECT_LT(
      RelativeDifference(DeltaAfter({.lr_scale = 0.25F}, kChunk), Combine(0.25, full, 0, full)),
      1e-6);
  EXPECT_EQ(Norm(DeltaAfter({.lr_scale = 0}, kChunk)), 0);
}

TEST_P(LearningControlsTest, ClipNormBoundsAnUpdateAndLeavesSmallerOnesAlone) {
  const auto full = DeltaAfter({}, kChunk);
  const double norm = Norm(full);
  const auto clipped = DeltaAfter({.clip_norm = static_cast<float>(norm / 8)}, kChunk);
  EXPECT_LT(RelativeDifference(clipped, Combine(0.125, full, 0, full)), 1e-5);
  EXPECT_EQ(DeltaAfter({.clip_norm = static_cast<float>(norm * 2)}, kChunk), full);
}

TEST_P(LearningControlsTest, DecayShrinksWhatWasLearntBefore) {
  const auto first = DeltaAfter({}, kChunk);
  const auto both = DeltaAfter({}, 2 * kChunk);
  EXPECT_EQ(DeltaAfter({.decay = 0.3F}, kChunk), first) << "there is nothing to decay yet";
  EXPECT_LT(
      RelativeDifference(DeltaAfter({.decay = 0.3F}, 2 * kChunk), Combine(1, both, -0.3, first)),
      1e-5);
}

TEST_P(LearningControlsTest, MaxRelativeNormKeepsTheOldDeltaUndecayed) {
  const double down =
      engine_->model()
          .weights.layers[static_cast<size_t>(engine_->model().config.ttt->layers.front())]
          .down_norm;
  const auto first = DeltaAfter({}, kChunk);
  const double one = Norm(first) / down;
  ASSERT_GT(Norm(DeltaAfter({}, 2 * kChunk)) / down, one * 1.01);
  LearningControls controls = {.decay = 0.001F,
                               .max_relative_norm = static_cast<float>(one * 1.01)};
  // A GPU adds up in another order where a step has more rows; a decay would be a hundred times
  // that.
  EXPECT_LT(RelativeDifference(DeltaAfter(controls, 2 * kChunk), first), 1e-5);
  controls.max_relative_norm = static_cast<float>(one * 0.99);
  EXPECT_EQ(Norm(DeltaAfter(controls, kChunk)), 0) << "not even the first fits";
}

TEST_P(LearningControlsTest, UpdatesClipsAndSkipsAreCounted) {
  const auto backend = *CreateTestBackend(GetParam(), /*cpu_threads=*/1);
  const ServedModel served =
      LoadServedModel(Golden("qwen3-hidden-target").dir(), /*with_tokenizer=*/false, *backend);
  const auto model = *Model::Create(served.config, served.weights, *backend, 64);
  const auto pools = *CachePools::Create(served.config, *backend, {.limit_bytes = 16 << 20});
  const auto layers = static_cast<int64_t>(served.config.ttt->layers.size());
  const auto count = [&](const LearningControls& controls) {
    ComputedState state(*pools);
    const ControlLog log(controls);
    EXPECT_TRUE(state.cache().Reserve(
        state.cache().PeakBlocks(0, 3 * kChunk + 1, 3 * kChunk + 1, 64, /*max_lag_chunks=*/0)));
    std::vector<SequenceStep> steps(1);
    steps[0].controls = &log;
    steps[0].tokens = Part(0, 3 * kChunk + 1);
    state.Prepare(steps[0]);
    return *model->Run(*pools, absl::MakeSpan(steps));
  };
  EXPECT_EQ(count({}).chunks_closed, 3);
  EXPECT_EQ(count({}).updates.updates, 3 * layers);
  EXPECT_EQ(count({}).updates.clipped, 0);
  EXPECT_EQ(count({}).updates.skipped, 0);
  EXPECT_EQ(count({.clip_norm = 1e-5F}).updates.clipped, 3 * layers);
  EXPECT_EQ(count({.max_relative_norm = 1e-6F}).updates.skipped, 3 * layers);
  EXPECT_EQ(count({.freeze = true}).updates.updates, 0);
  EXPECT_EQ(count({.freeze = true}).chunks_closed, 3);
}

INSTANTIATE_TEST_SUITE_P(Backends, LearningControlsTest,
                         testing::Values(BackendKind::kCpuFloat32, BackendKind::kCudaFloat32),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace mneme
