// Invariant: a chunk that a step ends with is learnt before the session's next token, or when there
// is nothing else to do, and either way alike (DESIGN §7).

#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/forwarding_backend.h"
#include "tests/engine/loop_harness.h"

namespace mneme {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int64_t kChunk = 16;     // the fixture's
constexpr int64_t kStepRows = 64;  // of four chunks

// Notes how many updates the first TTT layer gets at a time.
class WatchedStream final : public ForwardingStream {
 public:
  WatchedStream(std::unique_ptr<Stream> inner, std::vector<size_t>* batches)
      : ForwardingStream(std::move(inner)), batches_(*batches) {}

  void UpdateFastWeights(const FastWeightLayer& layer, absl::Span<const ChunkUpdate> updates,
                         ChunkUpdateResult* results) override {
    if (first_layer_ == nullptr) first_layer_ = layer.conv.data;
    if (layer.conv.data == first_layer_) batches_.push_back(updates.size());
    ForwardingStream::UpdateFastWeights(layer, updates, results);
  }

 private:
  std::vector<size_t>& batches_;
  const void* first_layer_ = nullptr;
};

class WatchedBackend final : public ForwardingBackend {
 public:
  WatchedBackend(std::unique_ptr<Backend> inner, std::vector<size_t>* batches)
      : ForwardingBackend(std::move(inner)), batches_(batches) {}

  absl::StatusOr<std::unique_ptr<Stream>> CreateStream() override {
    auto stream = ForwardingBackend::CreateStream();
    if (!stream.ok()) return stream.status();
    return std::make_unique<WatchedStream>(*std::move(stream), batches_);
  }

 private:
  std::vector<size_t>* const batches_;
};

class UpdateWaitingTest : public testing::TestWithParam<BackendKind> {
 protected:
  void SetUp() override {
    MNEME_SKIP_WITHOUT_BACKEND(GetParam());
    HarnessOptions options = {.engine = {.max_step_tokens = kStepRows, .cache_bytes = 64 << 20},
                              .backend = GetParam()};
    options.wrap_backend = [this](std::unique_ptr<Backend> inner) {
      return std::make_unique<WatchedBackend>(std::move(inner), &batches_);
    };
    engine_.emplace(Golden("qwen3-hidden-target").dir(), options);
    ASSERT_EQ(engine_->model().config.ttt->chunk, kChunk);
  }

  std::vector<int32_t> Part(int64_t begin, int64_t end) const {
    return {tokens_.begin() + begin, tokens_.begin() + end};
  }
  // Steps until the call has ended and no further.
  void Finish(Call* call) {
    for (call->Read(); call->ends == 0 && engine_->Step();) call->Read();
    ASSERT_TRUE(EndedOk(*call));
  }
  // Makes a session whose first chunk waits.
  void CloseChunk(const std::string& id, const LearningControls& controls = {}) {
    engine_->Create(id, controls);
    Finish(engine_->StartAppend(id, Part(0, kChunk)).get());
    ASSERT_EQ(Waiting(id), 1);
  }
  int64_t Waiting(const std::string& id) {
    return (*engine_->loop().FindSession({"test", id}))->state().waiting_updates();
  }
  void Idle() { engine_->RunAll({}); }
  std::vector<std::vector<float>> Deltas(const std::string& id) {
    std::vector<std::vector<float>> all;
    for (size_t i = 0; i < engine_->model().config.ttt->layers.size(); ++i) {
      all.push_back(engine_->Delta(id, static_cast<int64_t>(i)));
    }
    return all;
  }
  // The updates since the last call, batch by batch.
  std::vector<size_t> TakeBatches() { return std::exchange(batches_, {}); }
  EngineLoad load() { return engine_->loop().load(); }

  std::vector<size_t> batches_;
  std::optional<LoopHarness> engine_;
  const std::vector<int32_t> tokens_ = Golden("qwen3-hidden-target").tokens();
};

TEST_P(UpdateWaitingTest, AChunkThatNobodyWaitsForIsLearntInAnIdleStep) {
  CloseChunk("s");
  EXPECT_EQ(engine_->Info("s").version, 1u) << "the log closes chunks";
  EXPECT_THAT(TakeBatches(), IsEmpty());
  EXPECT_TRUE(engine_->Delta("s", 0).empty());
  EXPECT_EQ(load().waiting_chunks, 1);
  EXPECT_TRUE(engine_->Step());
  EXPECT_THAT(TakeBatches(), ElementsAre(1));
  EXPECT_EQ(load().waiting_chunks, 0);
  EXPECT_FALSE(engine_->Delta("s", 0).empty());
  EXPECT_FALSE(engine_->Step()) << "nothing is left to do";
}

TEST_P(UpdateWaitingTest, AnIdleUpdateGivesTheBitsOfOneThatTheNextTokenWaitsFor) {
  CloseChunk("idle");
  Idle();
  EXPECT_THAT(TakeBatches(), ElementsAre(1));
  const auto after_idle = engine_->StartAppend("idle", Part(kChunk, kChunk + 9), true);
  Finish(after_idle.get());
  EXPECT_THAT(TakeBatches(), IsEmpty());

  CloseChunk("needed");
  const auto needing = engine_->StartAppend("needed", Part(kChunk, kChunk + 9), true);
  Finish(needing.get());
  EXPECT_THAT(TakeBatches(), ElementsAre(1)) << "in the step of the rows that need it";
  EXPECT_EQ(needing->AppendLogProbs(), after_idle->AppendLogProbs());
  EXPECT_EQ(Deltas("needed"), Deltas("idle"));
}

TEST_P(UpdateWaitingTest, ADecodedTokenThatNeedsAnUpdateGetsIt) {
  for (const std::string id : {"idle", "needed"}) CloseChunk(id);
  TakeBatches();
  // The draw after the last token needs none; the token that is drawn does.
  const auto needing = engine_->StartGenerate("needed", GreedyRequest(kChunk + 4));
  engine_->StepUntilTokens(needing.get(), 1);
  EXPECT_EQ(Waiting("needed"), 1);
  engine_->StepUntilTokens(needing.get(), 2);
  EXPECT_EQ(Waiting("needed"), 0);
  EXPECT_THAT(TakeBatches(), ElementsAre(1));
  Finish(needing.get());
  Idle();
  const auto after_idle = engine_->Generate("idle", GreedyRequest(kChunk + 4));
  EXPECT_EQ(needing->TokenIds(), after_idle->TokenIds());
  EXPECT_EQ(Deltas("needed"), Deltas("idle"));
}

TEST_P(UpdateWaitingTest, AProbeSeesWhatItsSessionHasRead) {
  GenerateRequest probe = GreedyRequest(kChunk + 4, {7, 8, 9});
  probe.learn = false;
  probe.logprobs = 0;
  const auto logprobs = [](const Call& call) {
    std::vector<float> all;
    for (const GeneratedToken& token : call.tokens) all.push_back(*token.logprob);
    return all;
  };
  CloseChunk("needed");
  const auto needing = engine_->StartGenerate("needed", probe);
  Finish(needing.get());
  EXPECT_THAT(TakeBatches(), ElementsAre(1));
  CloseChunk("idle");
  Idle();
  const auto after_idle = engine_->Generate("idle", probe);
  EXPECT_EQ(logprobs(*needing), logprobs(*after_idle));
  EXPECT_EQ(Deltas("needed"), Deltas("idle"));
}

TEST_P(UpdateWaitingTest, IdleUpdatesOfManySessionsAreBatched) {
  std::vector<std::unique_ptr<Call>> appends;
  for (const std::string id : {"a", "b", "c", "d", "e"}) {
    CloseChunk(id);
    appends.push_back(engine_->StartAppendStream(id, {}));  // waits for input
  }
  TakeBatches();
  Idle();
  EXPECT_THAT(TakeBatches(), ElementsAre(4, 1)) << "as many as a step has rows for";
  engine_->Create("reference");
  engine_->Append("reference", Part(0, kChunk));
  for (const std::string id : {"a", "b", "c", "d", "e"}) {
    for (size_t layer = 0; layer < Deltas(id).size(); ++layer) {
      // A GPU projects the chunks of a batch in one product, which may add up in another order.
      EXPECT_LT(RelativeDifference(Deltas(id)[layer], Deltas("reference")[layer]),
                IsFloat32(GetParam()) ? 1e-5 : 0.01);
    }
  }
}

TEST_P(UpdateWaitingTest, UpdatesThatTokensOfOneStepWaitForAreBatched) {
  for (const std::string id : {"a", "b", "c"}) CloseChunk(id);
  TakeBatches();
  for (const std::string id : {"a", "c"}) engine_->StartAppend(id, Part(kChunk, kChunk + 5));
  engine_->Step();
  EXPECT_THAT(TakeBatches(), ElementsAre(2));
  EXPECT_EQ(Waiting("b"), 1);
}

TEST_P(UpdateWaitingTest, RunningRequestsComeFirst) {
  CloseChunk("waiting");
  engine_->Create("running");
  const auto running = engine_->StartGenerate("running", GreedyRequest(5, Part(0, 3)));
  Finish(running.get());
  EXPECT_EQ(Waiting("waiting"), 1);
  Idle();
  EXPECT_EQ(Waiting("waiting"), 0);
}

TEST_P(UpdateWaitingTest, ControlsThatAreSetMeanwhileDoNotReachIt) {
  CloseChunk("half", {.lr_scale = 0.5F});
  engine_->SetControls("half", {});
  CloseChunk("frozen-late");
  engine_->SetControls("frozen-late", {.freeze = true});
  Idle();
  engine_->Create("reference");
  engine_->Append("reference", Part(0, kChunk));
  const std::vector<float> reference = engine_->Delta("reference", 0);
  // Two updates at once and one alone may round differently.
  EXPECT_LT(RelativeDifference(engine_->Delta("frozen-late", 0), reference), 1e-6);
  std::vector<float> twice = engine_->Delta("half", 0);
  for (float& value : twice) value *= 2;
  EXPECT_LT(RelativeDifference(twice, reference), 1e-6);
}

TEST_P(UpdateWaitingTest, AFrozenChunkDoesNotWait) {
  engine_->Create("s", {.freeze = true});
  for (const int64_t end : {kChunk, 3 * kChunk}) {
    const auto begin = static_cast<int64_t>(engine_->Info("s").position);
    Finish(engine_->StartAppend("s", Part(begin, end)).get());
    EXPECT_EQ(Waiting("s"), 0);
  }
  EXPECT_FALSE(engine_->Step());
}

TEST_P(UpdateWaitingTest, TheRowsThatWaitAreHeldUntilTheyAreLearnt) {
  CloseChunk("s");
  const int64_t waiting = engine_->Info("s").device_bytes;
  Idle();
  const int64_t learnt = engine_->Info("s").device_bytes;
  EXPECT_LT(learnt, waiting);
  EXPECT_EQ(load().device_bytes_reserved, learnt);
}

TEST_P(UpdateWaitingTest, AGenerationKeepsItsReservationWhenAnUpdateGivesRowsBack) {
  CloseChunk("s");
  const auto generation = engine_->StartGenerate("s", GreedyRequest(600));
  while (engine_->Step()) {  // nobody reads: it pauses
  }
  const int64_t reserved = load().device_bytes_reserved;
  EXPECT_GT(reserved, load().device_bytes_used);
  engine_->RunAll({generation.get()});
  EXPECT_TRUE(EndedOk(*generation));
  EXPECT_LE(engine_->Info("s").device_bytes, reserved);
}

TEST_P(UpdateWaitingTest, ASessionThatGoesTakesItsUpdatesAlong) {
  CloseChunk("deleted");
  ASSERT_TRUE(engine_->loop().DeleteSession({"test", "deleted"}).ok());
  CloseChunk("expired");
  ASSERT_TRUE(engine_->loop().UpdateSession({"test", "expired"}, {.ttl = absl::Seconds(5)}).ok());
  engine_->clock().Advance(absl::Seconds(6));
  const auto throw_away = engine_->StartGenerate("", GreedyRequest(2, Part(0, kChunk - 1)));
  engine_->RunAll({throw_away.get()});
  EXPECT_TRUE(EndedOk(*throw_away));
  EXPECT_FALSE(engine_->loop().GetSession({"test", "expired"}).ok());
  EXPECT_THAT(TakeBatches(), IsEmpty());
  EXPECT_EQ(load().device_bytes_used, 0);
  EXPECT_EQ(load().device_bytes_reserved, 0);
}

INSTANTIATE_TEST_SUITE_P(Backends, UpdateWaitingTest,
                         testing::Values(BackendKind::kCpuFloat32, BackendKind::kCudaFloat32,
                                         BackendKind::kCudaBFloat16),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace mneme
