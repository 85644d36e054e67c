// Invariant: forks and rollbacks are in the log before anybody is told of them (DESIGN §2.1); of a
// session that lies on the disk they wait for its log, and checkpoints for its state.

#include <map>
#include <optional>

#include "gtest/gtest.h"
#include "storage/records.h"
#include "tests/engine/durability/durable_engine.h"
#include "tests/engine/peek.h"
#include "tests/storage/edit_log.h"

namespace mneme {
namespace {

TEST(HistoryRestoreTest, ForksAndRollbacksOutliveThePower) {
  DurableEngine durable(Golden("qwen3-hidden-target").dir());
  const auto run = [&durable](const absl::StatusOr<SessionInfo>& info) {
    ASSERT_TRUE(info.ok()) << info.status();
    durable->RunAll({});
  };
  durable->Create("s", {.max_lag_chunks = 2});
  durable->Append("s", RandomTokens(50, 1), false, "r");
  durable->SetControls("s", {.clip_norm = 0.5F});
  durable->Append("s", RandomTokens(20, 2));
  run(durable->loop().ForkSession({"test", "s"}, "now", {}));
  run(durable->loop().ForkSession({"test", "s"}, "then", 53));
  run(durable->loop().RollbackSession({"test", "s"}, 60));
  durable->Append("s", RandomTokens(3, 7));
  std::map<std::string, std::vector<int32_t>> logs;
  std::map<std::string, uint64_t> versions;
  for (const std::string id : {"s", "now", "then"}) {
    durable->Append(id, RandomTokens(2, 8));
    logs[id] = (*durable->loop().FindSession({"test", id}))->log();
    versions[id] = durable->Info(id).version;
  }
  std::map<std::string, std::vector<int32_t>> next;
  for (const std::string id : {"s", "now", "then"}) {
    GenerateRequest probe = GreedyRequest(8);
    probe.learn = false;
    next[id] = durable->Generate(id, probe)->TokenIds();
  }
  durable.CutPowerAndStart();
  for (const std::string id : {"s", "now", "then"}) {
    GenerateRequest probe = GreedyRequest(8);
    probe.learn = false;
    const auto call = durable->Generate(id, probe);
    EXPECT_TRUE(EndedOk(*call)) << id;
    EXPECT_EQ(call->TokenIds(), next[id]) << id;
    EXPECT_EQ((*durable->loop().FindSession({"test", id}))->log(), logs[id]) << id;
    EXPECT_EQ(durable->Info(id).version, versions[id]) << id;
  }
}

TEST(HistoryRestoreTest, ARollbackForgetsControlsForGood) {
  DurableEngine durable(Golden("qwen3-hidden-target").dir());
  LoopHarness undisturbed(durable.model_dir());
  const std::vector<int32_t> tokens = RandomTokens(150, 1), more = RandomTokens(80, 2);
  const std::vector<int32_t> kept(tokens.begin(), tokens.begin() + 50);
  const LearningControls controls = {.lr_scale = 0.5F};
  durable->Create("s", controls);
  undisturbed.Create("s", controls);
  EXPECT_TRUE(EndedOk(*durable->Append("s", tokens)));
  durable->SetControls("s", {.freeze = true});
  ASSERT_TRUE(durable->loop().RollbackSession({"test", "s"}, 50).ok());
  durable->RunAll({});
  durable.CutPowerAndStart();
  EXPECT_TRUE(durable->Info("s").options.controls == controls);
  EXPECT_TRUE(EndedOk(*undisturbed.Append("s", kept)));
  for (LoopHarness* engine : {&*durable, &undisturbed}) {
    EXPECT_TRUE(EndedOk(*engine->Append("s", more)));
  }
  EXPECT_EQ(Peek(*durable, "s")->TokenIds(), Peek(undisturbed, "s")->TokenIds());
  EXPECT_LT(MaxDifference(durable->Delta("s", 0), undisturbed.Delta("s", 0)), 1e-4);
  const auto& governing = (*durable->loop().FindSession({"test", "s"}))->controls();
  EXPECT_EQ(governing.entries().size(), 1u) << "what was rolled back governs nothing";
}

// A session of many steps that lies on the disk, and one that has never been disturbed.
class HeldCallsTest : public testing::Test {
 protected:
  using Until = HeldCalls::Until;

  // What a call was told, if it was.
  template <typename T>
  using Answer = std::shared_ptr<std::optional<absl::StatusOr<T>>>;

  HeldCallsTest() : model_(Golden("qwen3-hidden-target").dir()), durable_(model_) {
    durable_->Create("s");
    EXPECT_TRUE(EndedOk(*durable_->Append("s", tokens_)));
    durable_.Start();
  }

  // Begins a call; `run` is the call itself, once its session is back.
  template <typename T, typename Run>
  Answer<T> Begin(Until until, Run run, HeldCalls::GaveUp gave_up = nullptr) {
    auto answer = std::make_shared<std::optional<absl::StatusOr<T>>>();
    loop().WhenBack({"test", "s"}, until, std::move(gave_up), [=](const absl::Status& status) {
      EXPECT_FALSE(answer->has_value()) << "it is told once";
      answer->emplace(status.ok() ? run() : absl::StatusOr<T>(status));
    });
    return answer;
  }
  Answer<SessionInfo> BeginFork(const std::string& id, HistoryPoint at = {},
                                HeldCalls::GaveUp gave_up = nullptr) {
    const auto fork = [=, this] { return loop().ForkSession({"test", "s"}, id, at); };
    return Begin<SessionInfo>(Until::kLog, fork, std::move(gave_up));
  }
  Answer<SessionInfo> BeginRollback(int64_t position) {
    const auto run = [=, this] { return loop().RollbackSession({"test", "s"}, position); };
    return Begin<SessionInfo>(Until::kAtRest, run);
  }
  Answer<CheckpointSummary> BeginCheckpoint(HeldCalls::GaveUp gave_up = nullptr) {
    auto answer = std::make_shared<std::optional<absl::StatusOr<CheckpointSummary>>>();
    loop().CheckpointSession(
        {"test", "s"}, "",
        [answer](absl::StatusOr<CheckpointSummary> taken) { answer->emplace(std::move(taken)); },
        std::move(gave_up));
    return answer;
  }
  void StepUntilAnswered(const Answer<SessionInfo>& answer) {
    while (!*answer && (durable_->Step() || durable_->WaitForDisk())) {
    }
  }
  // It goes on as one that has read just this.
  void ExpectIs(const std::string& id, const std::vector<int32_t>& tokens) {
    LoopHarness undisturbed(model_);
    undisturbed.Create("s");
    EXPECT_TRUE(EndedOk(*undisturbed.Append("s", tokens)));
    EXPECT_EQ(Peek(*durable_, id)->TokenIds(), Peek(undisturbed, "s")->TokenIds()) << id;
  }
  std::vector<int32_t> FirstTokens(size_t count) const {
    return {tokens_.begin(), tokens_.begin() + static_cast<std::ptrdiff_t>(count)};
  }
  EngineLoop& loop() { return durable_->loop(); }

  const std::filesystem::path model_;
  const std::vector<int32_t> tokens_ = RandomTokens(500, 1);
  DurableEngine durable_;
};

template <typename T>
testing::AssertionResult ToldOk(const std::shared_ptr<std::optional<absl::StatusOr<T>>>& answer) {
  if (!*answer) return testing::AssertionFailure() << "not told";
  if (!(*answer)->ok()) return testing::AssertionFailure() << (*answer)->status();
  return testing::AssertionSuccess();
}

template <typename T>
absl::StatusCode ToldCode(const std::shared_ptr<std::optional<absl::StatusOr<T>>>& answer) {
  return *answer ? (*answer)->status().code() : absl::StatusCode::kUnknown;
}

TEST_F(HeldCallsTest, AForkWaitsForTheLogAndNotForTheState) {
  const auto now = BeginFork("now");
  const auto then = BeginFork("then", 53);
  EXPECT_FALSE(*now || *then);
  StepUntilAnswered(now);
  ASSERT_TRUE(ToldOk(now));
  EXPECT_TRUE(ToldOk(then));
  EXPECT_FALSE((*loop().FindSession({"test", "s"}))->ready()) << "it is still computed again";
  EXPECT_TRUE(ToldOk(BeginFork("late"))) << "at once";
  for (const std::string id : {"s", "now", "late"}) ExpectIs(id, tokens_);
  ExpectIs("then", FirstTokens(53));
}

TEST_F(HeldCallsTest, ARollbackWaitsForTheLogAndNotForTheState) {
  const auto first = BeginRollback(400);
  StepUntilAnswered(first);
  ASSERT_TRUE(ToldOk(first));
  ExpectIs("s", FirstTokens(400));
  durable_.Start();
  ASSERT_TRUE(ToldOk([this] {
    const auto fork = BeginFork("fork");
    StepUntilAnswered(fork);
    return fork;
  }()));
  durable_->Step();
  EXPECT_FALSE((*loop().FindSession({"test", "s"}))->ready());
  EXPECT_TRUE(ToldOk(BeginRollback(300))) << "also in the middle of being computed again";
  ExpectIs("s", FirstTokens(300));
  ExpectIs("fork", FirstTokens(400));
}

TEST_F(HeldCallsTest, ACheckpointWaitsForTheState) {
  const auto taken = BeginCheckpoint();
  const auto rolled_back = BeginRollback(450);
  durable_->Create("other");
  EXPECT_FALSE(*taken);
  EXPECT_TRUE(EndedOk(*durable_->Append("other", {1, 2, 3})));
  durable_->RunAll({});
  ASSERT_TRUE(ToldOk(rolled_back));
  ASSERT_TRUE(ToldOk(taken)) << "of what was left";
  EXPECT_EQ((*taken)->value().position, 449u) << "whoever comes next computes the last one";
  EXPECT_TRUE((*loop().FindSession({"test", "s"}))->ready());
}

TEST_F(HeldCallsTest, CallsWaitBesideRequests) {
  const auto request = durable_->StartAppend("s", {7});
  const auto fork = BeginFork("fork");
  const auto rolled_back = BeginRollback(400);
  const auto taken = BeginCheckpoint();
  durable_->RunAll({request.get()});
  EXPECT_TRUE(EndedOk(*request));
  EXPECT_TRUE(ToldOk(fork));
  EXPECT_TRUE(ToldOk(taken));
  EXPECT_EQ(ToldCode(rolled_back), absl::StatusCode::kAborted) << "a request was in flight";
  ExpectIs("fork", tokens_);
}

TEST_F(HeldCallsTest, IfTheRestoreFailsTheyEndWithItsStatus) {
  durable_.Stop();
  StoreId id;
  {
    const auto opened = SessionStore::Open({.data_dir = durable_.data_dir()});
    id = opened->listing.sessions.at(0).id;
  }
  DamageRecord(durable_.data_dir(), LogKey(id, 0));
  durable_.Start();
  const auto taken = BeginCheckpoint();
  const std::vector<Answer<SessionInfo>> answers = {BeginFork("fork"), BeginRollback(9)};
  const auto request = durable_->StartAppend("s", {7});
  durable_->RunAll({request.get()});
  EXPECT_TRUE(EndedWith(*request, absl::StatusCode::kDataLoss, ErrorReason::kDataLoss));
  for (const auto& answer : answers) EXPECT_EQ(ToldCode(answer), absl::StatusCode::kDataLoss);
  EXPECT_EQ(ToldCode(taken), absl::StatusCode::kDataLoss);
  EXPECT_EQ(ToldCode(BeginFork("again")), absl::StatusCode::kDataLoss) << "at once";
}

TEST_F(HeldCallsTest, TheirClientsMayGiveUp) {
  bool gone = false;
  const auto gave_up = [&gone] {
    return gone ? absl::DeadlineExceededError("gone") : absl::OkStatus();
  };
  const auto fork = BeginFork("fork", {}, gave_up);
  const auto taken = BeginCheckpoint(gave_up);
  EXPECT_LE(loop().NextWake() - durable_->clock().Now(), absl::Seconds(1)) << "they are asked";
  gone = true;
  loop().RunOnce();
  EXPECT_EQ(ToldCode(fork), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(ToldCode(taken), absl::StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(loop().FindSession({"test", "fork"}).ok());
  ExpectIs("s", tokens_);
}

TEST_F(HeldCallsTest, DeletionAndShutdownEndThem) {
  auto fork = BeginFork("fork");
  auto taken = BeginCheckpoint();
  ASSERT_TRUE(loop().DeleteSession({"test", "s"}).ok());
  EXPECT_EQ(ToldCode(fork), absl::StatusCode::kAborted);
  EXPECT_EQ(ToldCode(taken), absl::StatusCode::kAborted);

  durable_->Create("s");
  durable_->Append("s", tokens_);
  durable_.Start();
  fork = BeginFork("fork");
  loop().Refuse(absl::UnavailableError("draining"));
  EXPECT_EQ(ToldCode(fork), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ToldCode(BeginFork("late")), absl::StatusCode::kUnavailable);

  durable_.Start();
  fork = BeginFork("fork");
  taken = BeginCheckpoint();
  durable_.Stop();
  EXPECT_EQ(ToldCode(fork), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ToldCode(taken), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace mneme
