// Invariant: nothing of one session reaches another; a session's results do not depend on what else
// runs (DESIGN §2.7).

#include "gtest/gtest.h"
#include "tests/engine/loop_harness.h"

namespace mneme {
namespace {

// Rows of a step change the order of a matmul's sums.
double LogProbTolerance(BackendKind backend) { return IsCuda(backend) ? 1e-3 : 1e-4; }

// What one client does: reads `prompt` into a session and lets it write; an empty id is a
// throw-away session, whose prompt is the generation's input.
struct Work {
  std::string id;
  LearningControls controls;
  std::vector<int32_t> prompt;
  GenerateRequest generate;
};

struct Running {
  std::unique_ptr<Call> append, generate;
};

GenerateRequest Sampled(int64_t max_tokens, uint64_t seed) {
  GenerateRequest request = GreedyRequest(max_tokens);
  request.sampling = {.temperature = 1.5F, .top_p = 0.95F, .frequency_penalty = 0.3F, .seed = seed};
  request.seed_given = true;
  return request;
}

std::vector<Work> ManyKinds() {
  std::vector<Work> all = {
      {"short", {}, RandomTokens(5, 1), Sampled(40, 1)},
      {"window", {}, RandomTokens(37, 2), GreedyRequest(30)},
      {"frozen", {.freeze = true}, RandomTokens(90, 3), Sampled(20, 2)},
      {"clipped", {.clip_norm = 0.5F, .decay = 0.1F}, RandomTokens(130, 4), Sampled(25, 3)},
      {"", {}, RandomTokens(70, 5), Sampled(35, 4)},
      {"same-seed", {}, RandomTokens(64, 6), Sampled(33, 1)},
      {"probe", {}, RandomTokens(50, 7), GreedyRequest(20, RandomTokens(30, 8))},
      {"", {}, RandomTokens(3, 9), GreedyRequest(50)},
  };
  all[6].generate.learn = false;
  for (Work& work : all) work.generate.logprobs = 2;
  return all;
}

Running Start(LoopHarness& engine, const Work& work) {
  Running running;
  GenerateRequest request = work.generate;
  if (work.id.empty()) {
    request.input.ids = work.prompt;
  } else {
    engine.Create(work.id, work.controls);
    running.append = engine.StartAppend(work.id, work.prompt, /*logprobs=*/true);
  }
  running.generate = engine.StartGenerate(work.id, request);
  return running;
}

void RunToEnd(LoopHarness& engine, const std::vector<Running>& all) {
  std::vector<Call*> calls;
  for (const Running& running : all) {
    if (running.append) calls.push_back(running.append.get());
    calls.push_back(running.generate.get());
  }
  engine.RunAll(calls);
  for (const Call* call : calls) EXPECT_TRUE(EndedOk(*call));
}

std::vector<float> GeneratedLogProbs(const Call& call) {
  std::vector<float> all;
  for (const GeneratedToken& token : call.tokens) {
    all.push_back(*token.logprob);
    for (const TokenLogProb& top : token.top_logprobs) all.push_back(top.logprob);
  }
  return all;
}

class IsolationTest : public testing::TestWithParam<std::tuple<std::string, BackendKind>> {
 protected:
  void SetUp() override { MNEME_SKIP_WITHOUT_BACKEND(options_.backend); }

  const std::filesystem::path dir_ = Golden(std::get<0>(GetParam())).dir();
  const HarnessOptions options_ = {.backend = std::get<1>(GetParam())};
  const double tolerance_ = LogProbTolerance(options_.backend);
};

TEST_P(IsolationTest, ManySessionsInSharedStepsGiveWhatEachGivesAlone) {
  LoopHarness together(dir_, options_);
  const std::vector<Work> all = ManyKinds();
  std::vector<Running> running;
  for (const Work& work : all) running.push_back(Start(together, work));
  RunToEnd(together, running);
  for (size_t i = 0; i < all.size(); ++i) {
    SCOPED_TRACE(i);
    LoopHarness alone(dir_, options_);
    std::vector<Running> expected;
    expected.push_back(Start(alone, all[i]));
    RunToEnd(alone, expected);
    EXPECT_EQ(running[i].generate->TokenIds(), expected[0].generate->TokenIds());
    EXPECT_LT(MaxDifference(GeneratedLogProbs(*running[i].generate),
                            GeneratedLogProbs(*expected[0].generate)),
              tolerance_);
    if (all[i].id.empty()) continue;
    EXPECT_LT(
        MaxDifference(running[i].append->AppendLogProbs(), expected[0].append->AppendLogProbs()),
        tolerance_);
    EXPECT_EQ(together.Info(all[i].id).position, alone.Info(all[i].id).position);
  }
}

TEST_P(IsolationTest, SessionsThatJoinARunningOneDoNotChangeIt) {
  LoopHarness engine(dir_, options_);
  engine.Create("first");
  engine.Append("first", RandomTokens(40, 1));
  LoopHarness alone(dir_, options_);
  alone.Create("first");
  alone.Append("first", RandomTokens(40, 1));
  const auto expected = alone.Generate("first", Sampled(60, 9));

  const auto first = engine.StartGenerate("first", Sampled(60, 9));
  std::vector<std::unique_ptr<Call>> others;
  for (uint32_t i = 0; engine.Step(); ++i) {
    first->Read();
    if (i % 7 == 0 && i < 50) {
      others.push_back(engine.StartGenerate("", GreedyRequest(5, RandomTokens(20 + i, i))));
    }
  }
  first->Read();
  EXPECT_TRUE(EndedOk(*first));
  EXPECT_EQ(first->TokenIds(), expected->TokenIds());
}

INSTANTIATE_TEST_SUITE_P(
    Fixtures, IsolationTest,
    testing::Combine(testing::Values("qwen3-window-yarn", "llama-input-target"),
                     testing::Values(BackendKind::kCpuFloat32, BackendKind::kCudaFloat32)),
    [](const auto& param) {
      return std::get<0>(param.param).substr(0, 5) + "_" + NameOf(std::get<1>(param.param));
    });

class TenantTest : public testing::Test {
 protected:
  std::unique_ptr<Call> Generate(const std::string& tenant) {
    auto call = std::make_unique<Call>();
    call->channel = std::make_shared<RequestChannel>(nullptr);
    GenerateRequest request = GreedyRequest(4, {1, 2, 3});
    request.header.session = {tenant, "s"};
    request.header.request_id = "r";
    engine_.loop().Generate(request, call->channel);
    return call;
  }

  LoopHarness engine_{Golden("qwen3-window-yarn").dir()};
};

TEST_F(TenantTest, TheSameIdInTwoTenantsNamesTwoSessions) {
  EngineLoop& loop = engine_.loop();
  ASSERT_TRUE(loop.CreateSession({"a", "s"}, {}).ok());
  ASSERT_TRUE(loop.CreateSession({"b", "s"}, {}).ok());
  const auto call = Generate("a");
  engine_.RunAll({call.get()});
  EXPECT_TRUE(EndedOk(*call));
  EXPECT_EQ(loop.GetSession({"a", "s"})->position, 7u);
  EXPECT_EQ(loop.GetSession({"b", "s"})->position, 0u);
  EXPECT_EQ(loop.ListSessions("b", "", 10).sessions.size(), 1u);
  ASSERT_TRUE(loop.DeleteSession({"a", "s"}).ok());
  EXPECT_TRUE(loop.GetSession({"b", "s"}).ok());
}

TEST_F(TenantTest, AForeignSessionIsNotFoundAsIfItDidNotExist) {
  EngineLoop& loop = engine_.loop();
  ASSERT_TRUE(loop.CreateSession({"a", "s"}, {}).ok());
  const SessionKey foreign = {"b", "s"};
  EXPECT_EQ(loop.GetSession(foreign).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(loop.UpdateSession(foreign, {}).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(loop.DeleteSession(foreign).status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(loop.ListSessions("b", "", 10).sessions.empty());
  const auto refused = Generate("b");
  refused->Read();
  EXPECT_TRUE(EndedWith(*refused, absl::StatusCode::kNotFound, ErrorReason::kSessionNotFound));

  const auto running = Generate("a");
  EXPECT_EQ(loop.Cancel(foreign, "r").code(), absl::StatusCode::kNotFound);
  engine_.RunAll({running.get()});
  EXPECT_TRUE(EndedOk(*running));
}

}  // namespace
}  // namespace mneme
