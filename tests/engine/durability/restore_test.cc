// A session that comes back from the disk goes on like one that never left.

#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/engine/durability/durable_engine.h"
#include "tests/engine/peek.h"

namespace mneme {
namespace {

std::string Printable(std::string name) {
  for (char& c : name) {
    if (c == '-') c = '_';
  }
  return name;
}

// Model, chunks that may wait.
class RestoreModelTest : public ::testing::TestWithParam<std::tuple<std::string, int>> {
 protected:
  std::filesystem::path model() const {
    return std::filesystem::path("tests/golden") / std::get<0>(GetParam());
  }
  LearningControls controls() const { return {.max_lag_chunks = std::get<1>(GetParam())}; }
};

INSTANTIATE_TEST_SUITE_P(All, RestoreModelTest,
                         ::testing::Combine(::testing::ValuesIn(GoldenNames()),
                                            ::testing::Values(0, 1, 3)),
                         [](const auto& parameter) {
                           return absl::StrCat(Printable(std::get<0>(parameter.param)), "_lag",
                                               std::get<1>(parameter.param));
                         });

// One stage of a session's life; what happens in it depends on the seed alone.
void Live(LoopHarness& engine, int stage, uint32_t seed, const LearningControls& controls) {
  std::mt19937 random(seed * 31 + static_cast<uint32_t>(stage));
  switch (stage) {
    case 0:
      EXPECT_TRUE(EndedOk(*engine.Append("s", RandomTokens(20 + random() % 80, seed))));
      break;
    case 1:
      EXPECT_TRUE(
          EndedOk(*engine.Generate("s", GreedyRequest(1 + static_cast<int>(random() % 40)))));
      break;
    case 2:
      engine.SetControls("s", {.max_lag_chunks = controls.max_lag_chunks / 2,
                               .clip_norm = 0.5F,
                               .freeze = random() % 3 == 0});
      EXPECT_TRUE(EndedOk(*engine.Append("s", RandomTokens(1 + random() % 60, seed + 1))));
      break;
    default:
      EXPECT_TRUE(EndedOk(*engine.Generate("s", GreedyRequest(7, RandomTokens(5, seed + 2)))));
  }
}

TEST_P(RestoreModelTest, TheSameTokensFollowWhereverTheServerStops) {
  for (uint32_t seed = 0; seed < 3; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    LoopHarness undisturbed(model());
    DurableEngine durable(model());
    undisturbed.Create("s", controls());
    durable->Create("s", controls());
    for (int stage = 0; stage < 4; ++stage) {
      SCOPED_TRACE(absl::StrCat("stage ", stage));
      Live(undisturbed, stage, seed, controls());
      Live(*durable, stage, seed, controls());
      const auto before = Peek(*durable, "s", 30);
      const SessionInfo expected = durable->Info("s");
      (static_cast<uint32_t>(stage) + seed) % 2 == 0 ? durable.Start() : durable.CutPowerAndStart();
      const SessionInfo listed = durable->Info("s");
      EXPECT_EQ(listed.residence, Residence::kDisk);
      EXPECT_EQ(listed.position, expected.position);
      EXPECT_EQ(listed.version, expected.version);
      EXPECT_EQ(listed.options.controls, expected.options.controls);
      ExpectSame(*Peek(*durable, "s", 30), *before);
      EXPECT_EQ(durable->Info("s").residence, Residence::kDevice);
      // When deferred updates are applied depends on what the engine has to do besides.
      if (controls().max_lag_chunks > 0) continue;
      ExpectSame(*Peek(*durable, "s", 30), *Peek(undisturbed, "s", 30));
      const Session& session = **durable->loop().FindSession({"test", "s"});
      EXPECT_EQ(session.log(), (*undisturbed.loop().FindSession({"test", "s"}))->log());
    }
  }
}

TEST_P(RestoreModelTest, EveryLengthAroundTheEndOfAChunk) {
  DurableEngine durable(model());
  const int64_t chunk = durable->model().config.ttt->chunk;
  std::vector<std::pair<std::string, std::unique_ptr<Call>>> sessions;
  for (int64_t length = 2 * chunk - 2; length <= 2 * chunk + 2; ++length) {
    for (const bool samples : {false, true}) {
      const std::string id = absl::StrCat("s", length, samples ? "-sampled" : "");
      durable->Create(id, controls());
      EXPECT_TRUE(EndedOk(*durable->Append(id, RandomTokens(static_cast<size_t>(length), 7))));
      if (samples) {
        EXPECT_TRUE(EndedOk(*durable->Generate(id, GreedyRequest(1))));
      }
      sessions.emplace_back(id, Peek(*durable, id, 2 * chunk));
    }
  }
  durable.Start();
  for (const auto& [id, expected] : sessions) {
    SCOPED_TRACE(id);
    ExpectSame(*Peek(*durable, id, 2 * chunk), *expected);
  }
}

class RestoreTest : public ::testing::Test {
 protected:
  static GenerateRequest Named(const std::string& id, GenerateRequest request) {
    request.header.request_id = id;
    return request;
  }

  const std::filesystem::path model_ = "tests/golden/qwen3-hidden-target";
  DurableEngine durable_{model_};
};

TEST_F(RestoreTest, ARetriedGenerationIsReplayedAndGoesOn) {
  LoopHarness undisturbed(model_);
  undisturbed.Create("s");
  GenerateRequest request = GreedyRequest(40, RandomTokens(30, 1));
  request.logprobs = 2;
  const auto expected = undisturbed.Generate("s", request);

  durable_->Create("s");
  const auto begun = durable_->StartGenerate("s", Named("g", request));
  durable_->StepUntilTokens(begun.get(), 10);
  const std::vector<int32_t> told = begun->TokenIds();
  durable_.CutPowerAndStart();
  const auto retried = durable_->Generate("s", Named("g", request));
  ASSERT_TRUE(EndedOk(*retried));
  EXPECT_EQ(retried->TokenIds(), expected->TokenIds());
  ASSERT_GE(retried->tokens.size(), told.size());
  EXPECT_EQ(retried->tokens[3].top_logprobs.size(), 2u);

  durable_.Start();
  const auto again = durable_->Generate("s", Named("g", request));
  EXPECT_EQ(again->TokenIds(), expected->TokenIds());
  EXPECT_EQ(again->finished->position, expected->finished->position);
  EXPECT_EQ(durable_->Info("s").position, expected->finished->position);
}

TEST_F(RestoreTest, ARetriedAppendSkipsWhatIsLogged) {
  durable_->Create("s");
  const std::vector<int32_t> tokens = RandomTokens(300, 2);
  const auto begun = durable_->StartAppend("s", tokens, /*logprobs=*/true, "a");
  while (begun->progress.size() < 2 && (durable_->Step() || durable_->WaitForDisk())) begun->Read();
  ASSERT_GE(begun->progress.size(), 2u);
  const uint64_t told = begun->progress.back().position;
  durable_.CutPowerAndStart();
  EXPECT_GE(durable_->Info("s").position, told);
  EXPECT_TRUE(EndedWith(*durable_->Append("s", RandomTokens(300, 3), true, "a"),
                        absl::StatusCode::kInvalidArgument, ErrorReason::kPayloadMismatch));
  const auto retried = durable_->Append("s", tokens, /*logprobs=*/true, "a");
  ASSERT_TRUE(EndedOk(*retried));
  EXPECT_EQ(durable_->Info("s").position, 300u);
  LoopHarness undisturbed(model_);
  undisturbed.Create("s");
  const auto expected = undisturbed.Append("s", tokens, /*logprobs=*/true);
  EXPECT_LT(MaxDifference(retried->AppendLogProbs(), expected->AppendLogProbs()), kPeekTolerance);
}

TEST_F(RestoreTest, TheLastSampledTokenStaysUncomputed) {
  durable_->Create("s");
  EXPECT_TRUE(EndedOk(*durable_->Generate("s", GreedyRequest(5, RandomTokens(20, 3)))));
  durable_.Start();
  EXPECT_TRUE(EndedOk(*durable_->Append("s", {1})));
  const Session& session = **durable_->loop().FindSession({"test", "s"});
  EXPECT_EQ(session.position(), 26);
  EXPECT_EQ(session.computed(), 26);
}

TEST_F(RestoreTest, OtherSessionsGoOnWhileOneComesBack) {
  durable_->Create("long");
  EXPECT_TRUE(EndedOk(*durable_->Append("long", RandomTokens(1500, 4))));
  durable_.Start();
  durable_->Create("other");
  const auto restored = durable_->StartGenerate("long", GreedyRequest(1));
  const auto other = durable_->StartGenerate("other", GreedyRequest(5, {1, 2, 3}));
  while (other->ends == 0 && (durable_->Step() || durable_->WaitForDisk())) other->Read();
  EXPECT_TRUE(EndedOk(*other));
  restored->Read();
  EXPECT_EQ(restored->ends, 0) << "it has 24 steps to compute";
  durable_->RunAll({restored.get()});
  EXPECT_TRUE(EndedOk(*restored));
}

TEST_F(RestoreTest, NobodyComesBackForARequestThatHasEnded) {
  durable_->Create("long");
  EXPECT_TRUE(EndedOk(*durable_->Append("long", RandomTokens(1500, 4))));
  durable_.Start();
  GenerateRequest request = GreedyRequest(1);
  request.header.deadline = durable_->clock().Now() + absl::Seconds(1);
  const auto hurried = durable_->StartGenerate("long", request);
  Session& session = **durable_->loop().FindSession({"test", "long"});
  while (session.computed() == 0 && (durable_->Step() || durable_->WaitForDisk())) {
  }
  durable_->clock().Advance(absl::Seconds(2));
  durable_->RunAll({hurried.get()});
  EXPECT_TRUE(
      EndedWith(*hurried, absl::StatusCode::kDeadlineExceeded, ErrorReason::kDeadlineExceeded));
  EXPECT_EQ(durable_->loop().requests_in_flight(), 0);
  EXPECT_LT(session.computed(), 1500);
  EXPECT_EQ(durable_->loop().load().device_bytes_reserved, session.cache().held_bytes());
  LoopHarness undisturbed(model_);
  undisturbed.Create("long");
  EXPECT_TRUE(EndedOk(*undisturbed.Append("long", RandomTokens(1500, 4))));
  EXPECT_EQ(Peek(*durable_, "long")->TokenIds(), Peek(undisturbed, "long")->TokenIds());
}

TEST_F(RestoreTest, SessionCallsLast) {
  durable_->Create("kept");
  durable_->Create("changed", {.max_lag_chunks = 2});
  durable_->Create("deleted");
  EXPECT_TRUE(EndedOk(*durable_->Append("deleted", RandomTokens(20, 5))));
  ASSERT_TRUE(durable_->loop()
                  .UpdateSession({"test", "changed"},
                                 {.controls = {.clip_norm = 0.25F},
                                  .labels = std::map<std::string, std::string>{{"a", "b"}},
                                  .ttl = absl::Seconds(60)})
                  .ok());
  ASSERT_TRUE(durable_->loop().DeleteSession({"test", "deleted"}).ok());
  durable_->RunAll({});
  durable_.CutPowerAndStart();
  EXPECT_EQ(durable_->loop().ListSessions("test", "", 10).sessions.size(), 2u);
  const SessionInfo info = durable_->Info("changed");
  EXPECT_EQ(info.options.controls.max_lag_chunks, 2);
  EXPECT_EQ(info.options.controls.clip_norm, 0.25F);
  EXPECT_EQ(info.options.labels.at("a"), "b");

  // Also on a session that is not loaded.
  durable_->SetControls("changed", {.freeze = true});
  EXPECT_TRUE(EndedOk(*durable_->Append("changed", RandomTokens(40, 6))));
  EXPECT_TRUE(durable_->Info("changed").options.controls.freeze);
  durable_.Start();
  EXPECT_TRUE(durable_->Info("changed").options.controls.freeze);
  EXPECT_TRUE(EndedOk(*durable_->Append("changed", RandomTokens(40, 6))));
  EXPECT_TRUE(durable_->Delta("changed", 0).empty()) << "frozen from the first token on";

  durable_->clock().Advance(absl::Seconds(61));
  durable_->RunAll({});
  durable_.Start();
  EXPECT_EQ(durable_->loop().ListSessions("test", "", 10).sessions.size(), 1u);
}

// A session that lives for 100 s unless it is used, on a clock that starts anew with the server.
class RestoreTtlTest : public RestoreTest {
 protected:
  RestoreTtlTest() {
    EXPECT_TRUE(durable_->loop().CreateSession({"test", "s"}, {.ttl = absl::Seconds(100)}).ok());
    EXPECT_TRUE(EndedOk(*Append()));
  }
  std::unique_ptr<Call> Append() { return durable_->Append("s", {1, 2, 3}, false, "request"); }
  // Whether the session, restored after a loss of power, is there at this time.
  bool IsThereAt(absl::Duration time) {
    durable_.CutPowerAndStart();
    durable_->clock().Advance(time);
    durable_->RunAll({});
    return durable_->loop().GetSession({"test", "s"}).ok();
  }
};

TEST_F(RestoreTtlTest, ItIsCountedFromTheLastUse) { EXPECT_FALSE(IsThereAt(absl::Seconds(100))); }

TEST_F(RestoreTtlTest, AnUpdateIsAUse) {
  durable_->clock().Advance(absl::Seconds(90));
  ASSERT_TRUE(durable_->loop().UpdateSession({"test", "s"}, {.labels = {{{"a", "b"}}}}).ok());
  durable_->RunAll({});
  EXPECT_TRUE(IsThereAt(absl::Seconds(150)));
  ASSERT_TRUE(durable_->loop().UpdateSession({"test", "s"}, {.ttl = absl::Seconds(60)}).ok())
      << "also of one that is not loaded";
  durable_->RunAll({});
  EXPECT_TRUE(IsThereAt(absl::Seconds(209)));
  EXPECT_TRUE(EndedOk(*Append()));
}

TEST_F(RestoreTtlTest, SoIsARequestThatLeavesNoTrace) {
  durable_->clock().Advance(absl::Seconds(90));
  Peek(*durable_, "s");
  EXPECT_TRUE(IsThereAt(absl::Seconds(150)));
}

TEST_F(RestoreTtlTest, SoIsARetry) {
  durable_->clock().Advance(absl::Seconds(90));
  EXPECT_TRUE(EndedOk(*Append()));
  EXPECT_TRUE(IsThereAt(absl::Seconds(150)));
  EXPECT_EQ(durable_->Info("s").position, 3u);
}

TEST_F(RestoreTtlTest, WithoutTheDiskUsesAreToldAtOnceAndWrittenLater) {
  durable_->clock().Advance(absl::Seconds(90));
  durable_.disk().SetHook(
      [](FileOp, const std::string&) { return rocksdb::IOStatus::IOError("EIO"); });
  durable_->Create("other");
  while (durable_->Step() || durable_->loop().log().Health().ok()) {
  }
  const int64_t pending = durable_->loop().load().log_pending_batches;
  GenerateRequest probe = GreedyRequest(3);
  probe.learn = false;
  const auto call = durable_->StartGenerate("s", probe);
  while (durable_->Step()) {
  }
  call->Read();
  EXPECT_TRUE(EndedOk(*call));
  EXPECT_EQ(durable_->loop().load().log_pending_batches, pending) << "it would only grow";
  durable_.disk().SetHook(nullptr);
  durable_->RunAll({});
  EXPECT_TRUE(IsThereAt(absl::Seconds(150)));
}

TEST_F(RestoreTtlTest, UsesInShortOrderAreWrittenOnce) {
  durable_->clock().Advance(absl::Seconds(90));
  Peek(*durable_, "s");
  std::atomic<int> writes = 0;
  durable_.disk().SetHook([&writes](FileOp, const std::string&) {
    ++writes;
    return rocksdb::IOStatus::OK();
  });
  durable_->clock().Advance(absl::Milliseconds(999));
  Peek(*durable_, "s");
  EXPECT_EQ(writes, 0);
  durable_->clock().Advance(absl::Milliseconds(1));
  Peek(*durable_, "s");
  EXPECT_GT(writes, 0);
}

TEST_F(RestoreTest, AnotherVocabularyOrChunkSizeIsRefusedAndOtherWeightsLearnAnew) {
  durable_->Create("s");
  EXPECT_TRUE(EndedOk(*durable_->Append("s", RandomTokens(30, 8))));
  durable_.Start("tests/golden/qwen3-window-yarn");  // other weights, the same chunks
  const auto anew = durable_->Generate("s", GreedyRequest(3));
  EXPECT_TRUE(EndedOk(*anew));
  LoopHarness other("tests/golden/qwen3-window-yarn");
  other.Create("s");
  EXPECT_TRUE(EndedOk(*other.Append("s", RandomTokens(30, 8))));
  EXPECT_EQ(anew->TokenIds(), other.Generate("s", GreedyRequest(3))->TokenIds());

  durable_.Start("tests/golden/llama-input-target");  // other chunks
  EXPECT_TRUE(EndedWith(*durable_->Generate("s", GreedyRequest(3)),
                        absl::StatusCode::kFailedPrecondition, ErrorReason::kOtherModel));
  EXPECT_TRUE(durable_->loop().DeleteSession({"test", "s"}).ok());
}

}  // namespace
}  // namespace mneme
