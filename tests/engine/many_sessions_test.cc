// Invariant: sessions that generate together, at different positions and closing chunks at
// different steps, give each the tokens that it gives alone, also where steps are recorded and
// repeated (DESIGN §2.7).

#include "gtest/gtest.h"
#include "tests/engine/loop_harness.h"
#include "tests/engine/repeating_backend.h"

namespace mneme {
namespace {

constexpr int64_t kTokens = 40;  // so many that chunks close meanwhile

class ManySessionsTest : public testing::TestWithParam<std::tuple<std::string, BackendKind>> {
 protected:
  void SetUp() override { MNEME_SKIP_WITHOUT_BACKEND(backend()); }

  BackendKind backend() const { return std::get<1>(GetParam()); }
  std::filesystem::path model_dir() const { return ModelDir(std::get<0>(GetParam())); }
  // Alone and together differ in the order of sums, which bfloat16 rounds on the way: see the
  // tolerances of golden_test.cc. What the bundled model says after random tokens moves by 0.2 if
  // its products alone are in bfloat16.
  double tolerance() const {
    if (IsFloat32(backend())) return 1e-3;
    return std::get<0>(GetParam()) == kDemoModel ? 0.4 : 0.12;
  }
  uint32_t sessions() const { return IsCuda(backend()) ? 64 : 14; }

  HarnessOptions Options() const {
    return {.engine = {.max_step_tokens = 128, .cache_bytes = 1 << 30, .session_tokens = 160},
            .backend = backend()};
  }
  static std::string Name(uint32_t i) { return "s" + std::to_string(i); }

  // Session i reads its prompt and generates; both run to their end with `engine`'s other calls.
  static std::unique_ptr<Call> Start(LoopHarness& engine, uint32_t i) {
    engine.Create(Name(i), i % 5 == 4 ? LearningControls{.freeze = true} : LearningControls{});
    engine.StartAppend(Name(i), RandomTokens(3 + 7 * i % 97, i));
    GenerateRequest request = GreedyRequest(kTokens + i % 3);
    request.logprobs = 2;
    request.learn = i % 7 != 6;
    return engine.StartGenerate(Name(i), request);
  }

  void ExpectTogetherAsAlone(const HarnessOptions& options) {
    LoopHarness together(model_dir(), options);
    std::vector<std::unique_ptr<Call>> calls;
    for (uint32_t i = 0; i < sessions(); ++i) calls.push_back(Start(together, i));
    std::vector<Call*> running;
    for (const auto& call : calls) running.push_back(call.get());
    together.RunAll(running);
    LoopHarness alone(model_dir(), Options());
    for (uint32_t i = 0; i < sessions(); ++i) {
      SCOPED_TRACE(i);
      const auto expected = Start(alone, i);
      alone.RunAll({expected.get()});
      ExpectSameTokens(*calls[i], *expected, tolerance());
      EXPECT_EQ(together.Info(Name(i)).version, alone.Info(Name(i)).version);
      ASSERT_TRUE(alone.loop().DeleteSession({"test", Name(i)}).ok());
    }
  }
};

TEST_P(ManySessionsTest, GiveTheTokensThatEachGivesAlone) { ExpectTogetherAsAlone(Options()); }

// A CPU runs the operations again, a GPU what it recorded of them.
TEST_P(ManySessionsTest, GiveThemAlsoInStepsThatAreRepeated) {
  RepeatCounts counts;
  HarnessOptions options = Options();
  options.wrap_backend = [&counts](std::unique_ptr<Backend> inner) {
    return MakeRepeatingBackend(std::move(inner), &counts);
  };
  ExpectTogetherAsAlone(options);
  EXPECT_GT(counts.recorded, 0);
  EXPECT_GT(counts.repeated, kTokens / 2);
}

INSTANTIATE_TEST_SUITE_P(
    Fixtures, ManySessionsTest,
    testing::Combine(testing::Values("qwen3-window-yarn", "llama-input-target", kDemoModel),
                     testing::Values(BackendKind::kCpuFloat32, BackendKind::kCudaFloat32,
                                     BackendKind::kCudaBFloat16, BackendKind::kCudaFp8Delta)),
    [](const auto& param) {
      return std::get<0>(param.param).substr(0, 5) + "_" + NameOf(std::get<1>(param.param));
    });

}  // namespace
}  // namespace mneme
