// Invariant: in deferred mode no more than `max_lag_chunks` closed chunks wait while tokens are
// computed, and the logged points of application, with the tokens, give the same state again
// (DESIGN §2, §7).

#include <algorithm>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/loop_harness.h"

namespace mneme {
namespace {

using ::testing::ElementsAre;
using ::testing::Not;

constexpr int64_t kChunk = 16;  // the fixture's
constexpr char kFixture[] = "qwen3-hidden-target";

TEST(UpdateLogTest, KnowsWhereEachChunkWasApplied) {
  UpdateLog log;
  EXPECT_EQ(log.PositionOf(0), std::nullopt);
  log.Add({0, 35});
  log.Add({1, 50});
  log.Add({3, 50});
  EXPECT_EQ(log.PositionOf(0), 35);
  EXPECT_EQ(log.PositionOf(1), 50);
  EXPECT_EQ(log.PositionOf(2), std::nullopt);
  EXPECT_EQ(log.PositionOf(3), 50);
  EXPECT_EQ(log.PositionOf(4), std::nullopt);
}

// --- A session's state alone, driven step by step. ---

class DeferredStateTest : public testing::TestWithParam<BackendKind> {
 protected:
  // A session's state with the controls that govern it.
  struct Subject {
    Subject(CachePools& pools, const LearningControls& initial) : state(pools), controls(initial) {}

    ComputedState state;
    ControlLog controls;
    std::vector<int32_t> tokens;  // to be computed
    std::vector<int32_t> drawn;   // greedily, after each step
  };

  void SetUp() override {
    MNEME_SKIP_WITHOUT_BACKEND(GetParam());
    backend_ = *CreateTestBackend(GetParam(), /*cpu_threads=*/1);
    served_ = LoadServedModel(Golden(kFixture).dir(), /*with_tokenizer=*/false, *backend_);
    model_ = *Model::Create(served_.config, served_.weights, *backend_, 64);
    pools_ = *CachePools::Create(served_.config, *backend_, {.limit_bytes = 64 << 20});
  }

  std::unique_ptr<Subject> Make(int64_t max_lag_chunks, int64_t reserved_lag_chunks) {
    auto subject =
        std::make_unique<Subject>(*pools_, LearningControls{.max_lag_chunks = max_lag_chunks});
    subject->tokens = Golden(kFixture).tokens();
    SessionCache& cache = subject->state.cache();
    constexpr int64_t kTokens = 400;
    EXPECT_TRUE(cache.Reserve(cache.PeakBlocks(0, kTokens, kTokens, 64, reserved_lag_chunks)));
    return subject;
  }
  std::unique_ptr<Subject> Make(int64_t max_lag_chunks) {
    return Make(max_lag_chunks, max_lag_chunks);
  }
  static int64_t Size(const Subject& subject) {
    return static_cast<int64_t>(subject.tokens.size());
  }

  // Computes `rows` more of its tokens, after the first `updates` that wait at least.
  void Advance(Subject& subject, int64_t rows, int64_t updates = 0) {
    SequenceStep step;
    step.controls = &subject.controls;
    step.first_position = subject.state.computed();
    const auto begin = subject.tokens.begin() + step.first_position;
    step.tokens.assign(begin, begin + rows);
    step.last_hidden = subject.state.last_hidden();
    if (rows > 0) {
      step.sample = SampleRow{.params = &greedy_,
                              .position = static_cast<uint64_t>(step.end_position()),
                              .top_logprobs = 0};
    }
    subject.state.Prepare(step, updates);
    const auto stats = model_->Run(*pools_, {&step, 1});
    ASSERT_TRUE(stats.ok()) << stats.status();
    if (rows > 0) {
      subject.drawn.push_back(step.sampled.id);
      logprobs_.push_back(step.sampled.logprob);
    }
    subject.state.Commit(step);
  }
  // Computes what is left of the tokens one by one, with updates where `points` has them.
  void Replay(Subject& subject, const UpdateLog& points) {
    while (subject.state.computed() < Size(subject)) {
      const int64_t closed = subject.state.computed() / kChunk;
      int64_t updates = 0;
      for (int64_t chunk = closed - subject.state.waiting_updates(); chunk < closed; ++chunk) {
        updates += points.PositionOf(chunk).value_or(Size(subject)) <= subject.state.computed();
      }
      Advance(subject, 1, updates);
    }
  }
  std::vector<std::vector<float>> Deltas(Subject& subject) {
    std::vector<std::vector<float>> all;
    const int64_t d = served_.config.hidden_size, f = served_.config.intermediate_size;
    const auto stream = *backend_->CreateStream();
    for (const void* delta : subject.state.cache().deltas()) {
      std::vector<float> values(static_cast<size_t>(d * f));
      const auto bytes = static_cast<int64_t>(values.size() * sizeof(float));
      const DeviceBuffer buffer = *backend_->Allocate(bytes);
      stream->ReadDelta(delta, {buffer.data(), DType::kF32, d, f, f});
      stream->CopyToHost(values.data(), buffer.data(), bytes);
      EXPECT_TRUE(stream->Synchronize().ok());
      all.push_back(std::move(values));
    }
    return all;
  }
  std::vector<float> TakeLogProbs() { return std::exchange(logprobs_, {}); }

  std::unique_ptr<Backend> backend_;
  ServedModel served_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<CachePools> pools_;
  const SamplingParams greedy_{.temperature = 0};
  std::vector<float> logprobs_;  // of what was drawn
};

TEST_P(DeferredStateTest, AReplayOfTokensAndPointsGivesTheSameState) {
  for (uint32_t seed = 1; seed <= 5; ++seed) {
    std::mt19937 random(seed);
    const auto recorded = Make(3);
    while (recorded->state.computed() < Size(*recorded)) {  // updates come at odd places
      const auto waiting = static_cast<uint32_t>(recorded->state.waiting_updates());
      Advance(*recorded, 1, random() % 11 == 0 ? random() % (waiting + 1) : 0);
    }
    const auto recorded_logprobs = TakeLogProbs();
    const UpdateLog& points = recorded->state.update_log();
    EXPECT_TRUE(std::any_of(points.points().begin(), points.points().end(),
                            [](const UpdatePoint& p) { return p.position % kChunk != 0; }));
    const auto replayed = Make(3);
    Replay(*replayed, points);
    EXPECT_EQ(replayed->state.update_log().points(), points.points());
    EXPECT_EQ(replayed->drawn, recorded->drawn);
    EXPECT_EQ(TakeLogProbs(), recorded_logprobs);
    EXPECT_EQ(Deltas(*replayed), Deltas(*recorded));

    const auto exact = Make(0);
    Replay(*exact, UpdateLog());
    EXPECT_TRUE(exact->state.update_log().points().empty());
    EXPECT_NE(TakeLogProbs(), recorded_logprobs) << "the points make a difference";
  }
}

// As a restart will do it with what a session has logged.
TEST_P(DeferredStateTest, AReplayOfAnEnginesSessionGivesItsStateAndItsNextToken) {
  LoopHarness engine(Golden(kFixture).dir(), {.backend = GetParam()});
  engine.Create("s", {.max_lag_chunks = 2});
  const auto replayed = Make(2);
  constexpr int64_t kPrompt = 37;
  replayed->tokens.resize(kPrompt);
  engine.Append("s", replayed->tokens);
  engine.Generate("s", GreedyRequest(50));  // whose updates end at an odd position, in idle steps
  engine.Generate("s", GreedyRequest(30));
  Session& session = **engine.loop().FindSession({"test", "s"});
  const UpdateLog& points = session.state().update_log();
  EXPECT_TRUE(std::any_of(points.points().begin(), points.points().end(),
                          [](const UpdatePoint& p) { return p.position % kChunk != 0; }));

  replayed->tokens.assign(session.log().begin(), session.log().end() - 1);
  Advance(*replayed, kPrompt);
  Replay(*replayed, points);
  Advance(*replayed, 0, replayed->state.waiting_updates());
  EXPECT_EQ(replayed->drawn.back(), session.log().back());
  const std::vector<std::vector<float>> deltas = Deltas(*replayed);
  for (size_t layer = 0; layer < deltas.size(); ++layer) {
    EXPECT_EQ(deltas[layer], engine.Delta("s", static_cast<int64_t>(layer)));
  }
}

TEST_P(DeferredStateTest, NoMoreThanTheLagWaitWhileTokensAreComputed) {
  for (const int64_t lag : {1, 3}) {
    const auto subject = Make(lag);
    int64_t most = 0;
    while (subject->state.computed() < 6 * kChunk) {
      Advance(*subject, 1);
      const int64_t computed = subject->state.computed(),
                    waiting = subject->state.waiting_updates();
      EXPECT_LE(waiting, computed % kChunk == 0 ? lag + 1 : lag) << "at " << computed;
      most = std::max(most, computed % kChunk == 0 ? waiting - 1 : waiting);
      EXPECT_EQ(subject->state.UpdatesDue(1, /*provisional=*/false), waiting > lag ? 1 : 0);
    }
    EXPECT_EQ(most, lag);
    std::vector<UpdatePoint> latest;
    for (int64_t chunk = 1; chunk + lag < 6; ++chunk) {
      latest.push_back({chunk - 1, (chunk + lag) * kChunk});
    }
    EXPECT_EQ(subject->state.update_log().points(), latest);
  }
}

TEST_P(DeferredStateTest, APieceThatPassesTheEndOfAChunkLeavesOnlyItsLastChunkWaiting) {
  const auto subject = Make(3);
  Advance(*subject, kChunk);
  Advance(*subject, kChunk);
  EXPECT_EQ(subject->state.waiting_updates(), 2);
  Advance(*subject, 2 * kChunk);
  EXPECT_EQ(subject->state.waiting_updates(), 1);
  EXPECT_THAT(subject->state.update_log().points(),
              ElementsAre(UpdatePoint{0, 2 * kChunk}, UpdatePoint{1, 2 * kChunk},
                          UpdatePoint{2, 3 * kChunk}));
}

TEST_P(DeferredStateTest, EachChunkWaitsAsLongAsTheControlsAtItsLastTokenSay) {
  const auto subject = Make(3);
  while (subject->state.computed() < 2 * kChunk) Advance(*subject, 1);
  subject->controls.Set(2 * kChunk, {});  // exact from now on
  Advance(*subject, 1);
  EXPECT_EQ(subject->state.waiting_updates(), 2) << "those closed in deferred mode";
  while (subject->state.computed() < 3 * kChunk) Advance(*subject, 1);
  EXPECT_EQ(subject->state.waiting_updates(), 3);
  Advance(*subject, 1);
  EXPECT_EQ(subject->state.waiting_updates(), 0) << "in order, for the third must not wait";
  EXPECT_THAT(subject->state.update_log().points(),
              ElementsAre(UpdatePoint{0, 3 * kChunk}, UpdatePoint{1, 3 * kChunk}));
}

TEST_P(DeferredStateTest, ALagBeyondWhatIsReservedIsCutShort) {
  const auto subject = Make(/*max_lag_chunks=*/8, /*reserved_lag_chunks=*/1);
  while (subject->state.computed() < Size(*subject)) {
    Advance(*subject, 1);
    EXPECT_LE(subject->state.waiting_updates(), 2);
  }
}

TEST_P(DeferredStateTest, UpdatesThatWaitedTogetherAreAppliedInOrder) {
  // With a decay the order of two updates matters.
  const auto together = Make(2), apart = Make(2);
  for (Subject* subject : {together.get(), apart.get()}) {
    subject->controls.Set(0, {.max_lag_chunks = 2, .decay = 0.5F, .lr_scale = 3});
    Advance(*subject, kChunk);
    Advance(*subject, kChunk);
  }
  Advance(*together, 0, 2);
  Advance(*apart, 0, 1);
  EXPECT_EQ(apart->state.waiting_updates(), 1);
  EXPECT_THAT(Deltas(*apart), Not(testing::Eq(Deltas(*together))));
  Advance(*apart, 0, 1);
  EXPECT_EQ(Deltas(*apart), Deltas(*together));
}

INSTANTIATE_TEST_SUITE_P(Backends, DeferredStateTest,
                         testing::Values(BackendKind::kCpuFloat32, BackendKind::kCudaFloat32,
                                         BackendKind::kCudaBFloat16),
                         testing::PrintToStringParamName());

// --- Deferred sessions in the engine. ---

class DeferredSessionTest : public testing::TestWithParam<BackendKind> {
 protected:
  void SetUp() override {
    MNEME_SKIP_WITHOUT_BACKEND(GetParam());
    engine_.emplace(Golden(kFixture).dir(), HarnessOptions{.backend = GetParam()});
  }

  ComputedState& State(const std::string& id) {
    return (*engine_->loop().FindSession({"test", id}))->state();
  }
  std::vector<int32_t> Prompt() const { return {tokens_.begin(), tokens_.begin() + 37}; }

  std::optional<LoopHarness> engine_;
  const std::vector<int32_t> tokens_ = Golden(kFixture).tokens();
};

TEST_P(DeferredSessionTest, AStreamGoesOnWhileItsChunksWaitAndIdleStepsCatchUp) {
  engine_->Create("s", {.max_lag_chunks = 2});
  EXPECT_EQ(engine_->Info("s").options.controls.max_lag_chunks, 2);
  engine_->Append("s", Prompt());
  const auto generation = engine_->StartGenerate("s", GreedyRequest(90));
  int64_t most = 0;
  size_t seen = 0;
  while (generation->ends == 0 && engine_->Step()) {
    generation->Read();
    most = std::max(most, State("s").waiting_updates());
    // What a token was computed after is logged before it is sent.
    const auto& points = State("s").update_log().points();
    if (points.size() > seen) {
      EXPECT_LE(points.back().position, State("s").computed());
      seen = points.size();
    }
  }
  EXPECT_TRUE(EndedOk(*generation));
  EXPECT_EQ(most, 3) << "two, and the one that has just closed";
  const int64_t bytes = engine_->Info("s").device_bytes;
  ASSERT_GT(State("s").waiting_updates(), 0);
  engine_->RunAll({});
  EXPECT_EQ(State("s").waiting_updates(), 0);
  EXPECT_LT(engine_->Info("s").device_bytes, bytes);
  EXPECT_EQ(State("s").update_log().points().back().chunk + 1, (37 + 89) / kChunk);
}

TEST_P(DeferredSessionTest, AProbeChangesNothingOfWhatWaits) {
  for (const std::string id : {"s", "twin"}) {
    engine_->Create(id, {.max_lag_chunks = 2});
    const auto append = engine_->StartAppend(id, {tokens_.begin(), tokens_.begin() + kChunk});
    while (append->ends == 0 && engine_->Step()) append->Read();
  }
  ASSERT_EQ(State("s").waiting_updates(), 1);
  GenerateRequest probe = GreedyRequest(2 * kChunk, {5});
  probe.learn = false;
  const auto call = engine_->StartGenerate("s", probe);
  while (call->ends == 0 && engine_->Step()) call->Read();
  EXPECT_TRUE(EndedOk(*call));
  EXPECT_EQ(State("s").waiting_updates(), 1);
  EXPECT_TRUE(State("s").update_log().points().empty());
  EXPECT_EQ(engine_->Info("s").device_bytes, engine_->Info("twin").device_bytes);
}

TEST_P(DeferredSessionTest, ALagThatIsRaisedMeanwhileTakesNoMemoryThatIsNotReserved) {
  engine_->Create("s");
  const auto generation = engine_->StartGenerate("s", GreedyRequest(90, Prompt()));
  engine_->StepUntilTokens(generation.get(), 5);
  engine_->SetControls("s", {.max_lag_chunks = 8});
  while (generation->ends == 0 && engine_->Step()) {
    generation->Read();
    EXPECT_LE(State("s").waiting_updates(), 1);
  }
  EXPECT_TRUE(EndedOk(*generation));
}

TEST_P(DeferredSessionTest, EverythingIsGivenBack) {
  engine_->Create("s", {.max_lag_chunks = 4});
  const auto generation = engine_->StartGenerate("s", GreedyRequest(90, Prompt()));
  engine_->StepUntilTokens(generation.get(), 70);
  ASSERT_GT(State("s").waiting_updates(), 1);
  ASSERT_TRUE(engine_->loop().DeleteSession({"test", "s"}).ok());
  engine_->RunAll({generation.get()});
  EXPECT_TRUE(EndedWith(*generation, absl::StatusCode::kAborted, ErrorReason::kSessionDeleted));
  EXPECT_EQ(engine_->loop().load().device_bytes_used, 0);
  EXPECT_EQ(engine_->loop().load().device_bytes_reserved, 0);
}

TEST_P(DeferredSessionTest, ALagBeyondTheBoundIsRefused) {
  EXPECT_FALSE(ValidateControls({.max_lag_chunks = kMaxLagChunks + 1}).ok());
  EXPECT_FALSE(ValidateControls({.max_lag_chunks = -1}).ok());
  EXPECT_TRUE(ValidateControls({.max_lag_chunks = kMaxLagChunks}).ok());
}

INSTANTIATE_TEST_SUITE_P(Backends, DeferredSessionTest,
                         testing::Values(BackendKind::kCpuFloat32, BackendKind::kCudaFloat32),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace mneme
