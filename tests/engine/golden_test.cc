// Every golden fixture against the engine: log-probabilities, ΔW and greedy continuation.
// Invariant: the mathematics of DESIGN §1.

#include "gtest/gtest.h"
#include "tests/engine/loop_harness.h"

namespace mneme {
namespace {

struct GoldenCase {
  std::string fixture;
  DType cpu_dtype;
  // The fixtures' stated bound for float32. With bfloat16 products each of the few layers rounds
  // its inputs by 2⁻⁹ relative, which on logits of size ~10 comes to some hundredths.
  double logprob_tolerance;
  double delta_tolerance;
};

std::vector<GoldenCase> Cases() {
  std::vector<GoldenCase> cases;
  for (const std::string& name : GoldenNames()) {
    cases.push_back({name, DType::kF32, 2e-3, 1e-4});
  }
  return cases;
}

std::string CaseName(const testing::TestParamInfo<GoldenCase>& info) {
  std::string name = info.param.fixture + (info.param.cpu_dtype == DType::kF32 ? "_f32" : "_bf16");
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

class GoldenTest : public testing::TestWithParam<GoldenCase> {
 protected:
  Golden golden_{GetParam().fixture};
  LoopHarness engine_{golden_.dir(), {.cpu_dtype = GetParam().cpu_dtype, .cpu_threads = 0}};

  void ExpectLogProbs(const std::string& session, const std::string& logits) {
    const auto call = engine_.Append(session, golden_.tokens(), /*logprobs=*/true);
    ASSERT_TRUE(call->end.has_value());
    ASSERT_TRUE(call->end->ok()) << *call->end;
    EXPECT_LT(MaxDifference(call->AppendLogProbs(), golden_.LogProbs(logits)),
              GetParam().logprob_tolerance);
  }
};

TEST_P(GoldenTest, LearningGivesTheLogProbabilitiesAndDeltas) {
  engine_.Create("s");
  ExpectLogProbs("s", "logits");
  const auto& layers = engine_.model().config.ttt->layers;
  for (size_t i = 0; i < layers.size(); ++i) {
    const auto delta = engine_.Delta("s", static_cast<int64_t>(i));
    EXPECT_LT(RelativeDifference(delta, golden_.Floats("delta." + std::to_string(layers[i]))),
              GetParam().delta_tolerance);
  }
}

TEST_P(GoldenTest, FreezeGivesTheLogProbabilitiesWithoutUpdates) {
  engine_.Create("s", {.freeze = true});
  ExpectLogProbs("s", "logits_no_update");
  EXPECT_TRUE(engine_.Delta("s", 0).empty()) << "a frozen session holds no fast weights";
}

TEST_P(GoldenTest, ClipNormGivesTheClippedLogProbabilities) {
  engine_.Create("s", {.clip_norm = 0.5F});
  ExpectLogProbs("s", "logits_clip_0.5");
}

TEST_P(GoldenTest, GreedyContinuationGivesTheSameTokens) {
  engine_.Create("s");
  engine_.Append("s", golden_.tokens());
  const auto call =
      engine_.Generate("s", GreedyRequest(static_cast<int64_t>(golden_.greedy().size())));
  EXPECT_EQ(call->TokenIds(), golden_.greedy());
  ASSERT_TRUE(call->finished.has_value());
  EXPECT_EQ(call->finished->reason, FinishReason::kLength);
}

INSTANTIATE_TEST_SUITE_P(Fixtures, GoldenTest, testing::ValuesIn(Cases()), CaseName);

}  // namespace
}  // namespace mneme
