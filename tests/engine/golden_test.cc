// Every golden fixture against the engine: log-probabilities, ΔW and greedy continuation.
// Invariant: the mathematics of DESIGN §1.

#include <algorithm>
#include <cmath>

#include "gtest/gtest.h"
#include "tests/engine/loop_harness.h"

namespace mneme {
namespace {

struct GoldenCase {
  std::string fixture;
  BackendKind backend;
  double logprob_tolerance;
  double delta_tolerance;
};

// With bfloat16 products each matmul rounds both its inputs by at most 2⁻⁹ relative. Over the 4
// matmuls in a row of each of the fixtures' 4 layers and the last one the independent errors add up
// to √(2 · 17) · 2⁻⁹ = 0.0114 of a value's size, and the logits' root mean square is about 1.
// (Measured, of log-probabilities: 0.006 to 0.009 root mean square, 0.032 at most.)
const double kBf16Error = std::sqrt(2.0 * 17) / 512;

// With bfloat16 activations everything that is written is rounded: in a layer the two norms, qkv
// before and after its rotation, the attention's output, gate and up, z, and the residual stream
// twice, beside 4 weights in a row; and at the end the last norm and its weight. √(4 · 13 + 2) ·
// 2⁻⁹ = 0.0144. ΔW, which rounds at random by up to 2⁻⁸ at each update, adds as much again in its
// share of the output: 0.02 in all.
const double kCudaBf16Error = std::sqrt(2.0 * (4 * 13 + 2)) / 512;

std::vector<GoldenCase> Cases() {
  std::vector<GoldenCase> cases;
  for (const std::string& name : GoldenNames()) {
    cases.push_back({name, BackendKind::kCpuFloat32, 2e-3, 1e-4});
    // The worst of some hundred log-probabilities; ΔW's norm is an average (measured: 0.0122).
    cases.push_back({name, BackendKind::kCpuBFloat16, 6 * kBf16Error, 3 * kBf16Error});
    cases.push_back({name, BackendKind::kCudaFloat32, 2e-3, 1e-4});
    cases.push_back({name, BackendKind::kCudaBFloat16, 6 * kCudaBf16Error, 3 * kCudaBf16Error});
  }
  return cases;
}

std::string CaseName(const testing::TestParamInfo<GoldenCase>& info) {
  std::string name = info.param.fixture + "_" + NameOf(info.param.backend);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

class GoldenTest : public testing::TestWithParam<GoldenCase> {
 protected:
  void SetUp() override {
    MNEME_SKIP_WITHOUT_BACKEND(GetParam().backend);
    engine_ = std::make_unique<LoopHarness>(
        golden_.dir(), HarnessOptions{.backend = GetParam().backend, .cpu_threads = 0});
  }

  void ExpectLogProbs(const std::string& session, const std::string& logits) {
    const auto call = engine_->Append(session, golden_.tokens(), /*logprobs=*/true);
    ASSERT_TRUE(call->end.has_value());
    ASSERT_TRUE(call->end->ok()) << *call->end;
    EXPECT_LT(MaxDifference(call->AppendLogProbs(), golden_.LogProbs(logits)),
              GetParam().logprob_tolerance);
  }

  // How far apart the two best logits are at each place of the greedy continuation.
  std::vector<float> ReferenceGaps() const {
    LoopHarness reference(golden_.dir());
    reference.Create("s");
    reference.Append("s", golden_.tokens());
    GenerateRequest request = GreedyRequest(static_cast<int64_t>(golden_.greedy().size()));
    request.logprobs = 2;
    const auto call = reference.Generate("s", request);
    EXPECT_EQ(call->TokenIds(), golden_.greedy());
    std::vector<float> gaps;
    for (const GeneratedToken& token : call->tokens) {
      gaps.push_back(token.top_logprobs[0].logprob - token.top_logprobs[1].logprob);
    }
    return gaps;
  }

  Golden golden_{GetParam().fixture};
  std::unique_ptr<LoopHarness> engine_;
};

TEST_P(GoldenTest, LearningGivesTheLogProbabilitiesAndDeltas) {
  engine_->Create("s");
  ExpectLogProbs("s", "logits");
  const auto& layers = engine_->model().config.ttt->layers;
  for (size_t i = 0; i < layers.size(); ++i) {
    const auto delta = engine_->Delta("s", static_cast<int64_t>(i));
    EXPECT_LT(RelativeDifference(delta, golden_.Floats("delta." + std::to_string(layers[i]))),
              GetParam().delta_tolerance);
  }
}

TEST_P(GoldenTest, FreezeGivesTheLogProbabilitiesWithoutUpdates) {
  engine_->Create("s", {.freeze = true});
  ExpectLogProbs("s", "logits_no_update");
  EXPECT_TRUE(engine_->Delta("s", 0).empty()) << "a frozen session holds no fast weights";
}

TEST_P(GoldenTest, ClipNormGivesTheClippedLogProbabilities) {
  engine_->Create("s", {.clip_norm = 0.5F});
  ExpectLogProbs("s", "logits_clip_0.5");
}

TEST_P(GoldenTest, GreedyContinuationGivesTheSameTokens) {
  if (!IsFloat32(GetParam().backend)) GTEST_SKIP() << "see the next test";
  engine_->Create("s");
  engine_->Append("s", golden_.tokens());
  const auto call =
      engine_->Generate("s", GreedyRequest(static_cast<int64_t>(golden_.greedy().size())));
  EXPECT_EQ(call->TokenIds(), golden_.greedy());
  ASSERT_TRUE(call->finished.has_value());
  EXPECT_EQ(call->finished->reason, FinishReason::kLength);
}

// With the reference's token forced at each place, and compared where its two best are further
// apart than the tolerance, six times the error of each: the fixtures' gaps may be as small as
// 5e-3.
TEST_P(GoldenTest, GreedyTokensAreTheSameWhereTheGapIsWideEnough) {
  if (IsFloat32(GetParam().backend)) GTEST_SKIP() << "see the test before";
  const size_t count = golden_.greedy().size();
  const std::vector<float> gaps = ReferenceGaps();
  ASSERT_EQ(gaps.size(), count);
  engine_->Create("s");
  engine_->Append("s", golden_.tokens());
  GenerateRequest next = GreedyRequest(1);
  next.learn = false;
  size_t compared = 0;
  for (size_t i = 0; i < count; ++i) {
    const auto call = engine_->Generate("s", next);
    ASSERT_TRUE(EndedOk(*call));
    if (gaps[i] > GetParam().logprob_tolerance) {
      EXPECT_EQ(call->tokens[0].id, golden_.greedy()[i]) << "token " << i << ", gap " << gaps[i];
      ++compared;
    }
    engine_->Append("s", {golden_.greedy()[i]});
  }
  EXPECT_GE(compared, count / 2);
}

INSTANTIATE_TEST_SUITE_P(Fixtures, GoldenTest, testing::ValuesIn(Cases()), CaseName);

}  // namespace
}  // namespace mneme
