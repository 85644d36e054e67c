// Invariant: a Generate with `learn` off leaves no trace in its session (DESIGN §3).

#include "gtest/gtest.h"
#include "tests/engine/loop_harness.h"

namespace mneme {
namespace {

class LearnOffTest : public testing::TestWithParam<std::tuple<std::string, BackendKind>> {
 protected:
  void SetUp() override {
    const auto& [fixture, backend] = GetParam();
    MNEME_SKIP_WITHOUT_BACKEND(backend);
    engine_.emplace(Golden(fixture).dir(), HarnessOptions{.backend = backend});
    engine_->Create("s");
    engine_->Create("twin");  // is never probed
  }

  static GenerateRequest ProbeRequest(size_t input_tokens, int64_t max_tokens) {
    GenerateRequest request = GreedyRequest(max_tokens, RandomTokens(input_tokens, 77));
    request.learn = false;
    return request;
  }

  std::vector<std::vector<float>> Deltas(const std::string& id) {
    std::vector<std::vector<float>> all;
    const auto layers = engine_->model().config.ttt->layers.size();
    for (size_t i = 0; i < layers; ++i) {
      all.push_back(engine_->Delta(id, static_cast<int64_t>(i)));
    }
    return all;
  }

  // Probes a session whose log is all computed: then every byte must stay.
  void ExpectNoTrace(const GenerateRequest& probe) {
    const SessionInfo before = engine_->Info("s");
    const auto deltas = Deltas("s");
    const auto call = engine_->Generate("s", probe);
    ASSERT_TRUE(EndedOk(*call));
    EXPECT_EQ(call->finished->position, before.position);
    EXPECT_EQ(call->finished->version, before.version);
    EXPECT_EQ(call->finished->chunks_closed, 0u);
    const SessionInfo after = engine_->Info("s");
    EXPECT_EQ(after.position, before.position);
    EXPECT_EQ(after.version, before.version);
    EXPECT_EQ(after.device_bytes, before.device_bytes);
    EXPECT_EQ(after.host_bytes, before.host_bytes);
    EXPECT_EQ(Deltas("s"), deltas);
  }

  // What comes next is what would have come without probes.
  void ExpectTheSameFuture() {
    const auto text = RandomTokens(30, 5);
    const auto actual = engine_->Append("s", text, /*logprobs=*/true);
    const auto expected = engine_->Append("twin", text, /*logprobs=*/true);
    EXPECT_LT(MaxDifference(actual->AppendLogProbs(), expected->AppendLogProbs()), 1e-5);
    EXPECT_EQ(engine_->Generate("s", GreedyRequest(40))->TokenIds(),
              engine_->Generate("twin", GreedyRequest(40))->TokenIds());
    EXPECT_EQ(engine_->Info("s").version, engine_->Info("twin").version);
    EXPECT_EQ(engine_->Info("s").device_bytes, engine_->Info("twin").device_bytes);
  }

  void AppendToBoth(size_t tokens, uint32_t seed) {
    engine_->Append("s", RandomTokens(tokens, seed));
    engine_->Append("twin", RandomTokens(tokens, seed));
  }

  std::optional<LoopHarness> engine_;
};

TEST_P(LearnOffTest, ProbesOverSeveralChunksAndWindowsLeaveNoTrace) {
  // 75 tokens end inside a chunk, 48 and 96 are boundaries of 16 and of 24.
  for (const size_t tokens : {48, 27, 21}) {
    AppendToBoth(tokens, static_cast<uint32_t>(tokens));
    ExpectNoTrace(ProbeRequest(100, 60));
    ExpectNoTrace(ProbeRequest(1, 1));
    ExpectNoTrace(ProbeRequest(0, 50));
  }
  ExpectTheSameFuture();
}

TEST_P(LearnOffTest, AProbeSeesWhatTheSessionLearnt) {
  AppendToBoth(100, 1);
  GenerateRequest learning = ProbeRequest(7, 12);
  const auto probe = engine_->Generate("s", learning);
  learning.learn = true;
  // Until the next chunk closes, learning and not learning see the same ΔW.
  const auto generated = engine_->Generate("twin", learning);
  const auto shared = static_cast<size_t>(4);
  for (size_t i = 0; i < shared; ++i) EXPECT_EQ(probe->tokens[i].id, generated->tokens[i].id);
}

TEST_P(LearnOffTest, AProbeComputesATokenThatIsLoggedAndNotComputed) {
  const int64_t chunk = engine_->model().config.ttt->chunk;
  // The uncomputed token closes a chunk, lies inside one, and opens one.
  for (const int64_t end : {3 * chunk, 3 * chunk + 5, 4 * chunk + 1}) {
    const auto missing = static_cast<size_t>(end) - engine_->Info("s").position;
    AppendToBoth(missing - 2, static_cast<uint32_t>(end));
    for (const std::string id : {"s", "twin"}) engine_->Generate(id, GreedyRequest(2));
    const SessionInfo before = engine_->Info("s");
    ASSERT_TRUE(EndedOk(*engine_->Generate("s", ProbeRequest(40, 20))));
    EXPECT_EQ(engine_->Info("s").position, before.position);
    EXPECT_EQ(engine_->Info("s").version, before.version);
    ExpectNoTrace(ProbeRequest(40, 20));
  }
  ExpectTheSameFuture();
}

TEST_P(LearnOffTest, ACancelledProbeLeavesNoTrace) {
  AppendToBoth(60, 1);
  const int64_t bytes = engine_->Info("s").device_bytes;
  GenerateRequest request = ProbeRequest(100, 60);
  request.header.request_id = "p";
  const auto call = engine_->StartGenerate("s", request);
  engine_->StepUntilTokens(call.get(), 5);
  ASSERT_TRUE(engine_->loop().Cancel({"test", "s"}, "p").ok());
  engine_->RunAll({call.get()});
  EXPECT_TRUE(EndedWith(*call, absl::StatusCode::kCancelled, ErrorReason::kCancelled));
  EXPECT_EQ(engine_->Info("s").device_bytes, bytes);
  ExpectTheSameFuture();
}

TEST_P(LearnOffTest, RequestsThatEndBehindAProbeDoNotDisturbIt) {
  AppendToBoth(60, 1);
  const auto expected = engine_->Generate("twin", ProbeRequest(50, 60));
  // A neighbour that comes first in each step would take any page that the probe lets go of.
  const auto neighbour = engine_->StartGenerate("", GreedyRequest(80, RandomTokens(7, 9)));
  const auto probe = engine_->StartGenerate("s", ProbeRequest(50, 60));
  while (probe->ends == 0) {
    GenerateRequest behind = GreedyRequest(5);
    behind.header.request_id = "behind";
    const auto queued = engine_->StartGenerate("s", behind);
    queued->channel->Cancel(absl::CancelledError());
    ASSERT_TRUE(engine_->Step());
    queued->Read();
    EXPECT_TRUE(EndedWith(*queued, absl::StatusCode::kCancelled));
    probe->Read();
  }
  engine_->RunAll({neighbour.get()});
  EXPECT_TRUE(EndedOk(*neighbour));
  EXPECT_TRUE(EndedOk(*probe));
  EXPECT_EQ(probe->TokenIds(), expected->TokenIds());
}

INSTANTIATE_TEST_SUITE_P(
    Fixtures, LearnOffTest,
    testing::Combine(testing::Values("qwen3-window-yarn", "llama-input-target"),
                     testing::Values(BackendKind::kCpuFloat32, BackendKind::kCudaFloat32)),
    [](const auto& param) {
      return std::get<0>(param.param).substr(0, 5) + "_" + NameOf(std::get<1>(param.param));
    });

}  // namespace
}  // namespace mneme
