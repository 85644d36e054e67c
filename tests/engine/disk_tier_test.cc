// Invariant: sessions that leave memory for the disk go on as if they had stayed; who has a request
// in flight stays; what the disk does not take stays where it is (DESIGN §2.9, §8).

#include "engine/durability/disk_tier.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/durable_engine.h"
#include "tests/engine/peek.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;

constexpr char kModel[] = "tests/golden/qwen3-hidden-target";

class TierStats : public StatsSink {
 public:
  void OnParked(int64_t /*bytes*/, absl::Duration /*time*/) override { ++parked; }
  void OnUnloaded(int64_t device_bytes) override { ++(device_bytes > 0 ? from_device : from_host); }
  void OnCheckpoint(int64_t /*bytes*/, absl::Duration /*time*/) override { ++written; }
  void OnCheckpointFailed(const absl::Status& /*why*/) override { ++failed; }
  void OnCheckpointRefused(const absl::Status& why) override { refused.push_back(why); }
  void OnRestoring(int64_t checkpoint_tokens, int64_t tokens) override {
    restored = checkpoint_tokens;
    of = tokens;
  }

  int parked = 0, from_device = 0, from_host = 0, written = 0, failed = 0;
  std::vector<absl::Status> refused;
  int64_t restored = -1, of = -1;  // of the last restore
};

int64_t WholeSlabs(int64_t bytes) {
  return (bytes / HostPool::kSlabBytes + 1) * HostPool::kSlabBytes;
}

// An engine whose device and host hold so many sessions of 100 tokens, on a disk, and one that
// holds all of them in memory.
class TwoEngines {
 public:
  TwoEngines(const std::filesystem::path& model, double on_device, int on_host, TierStats* stats,
             bool checkpoint_kv = true)
      : undisturbed_(model) {
    undisturbed_.Create("size");
    EXPECT_TRUE(EndedOk(*undisturbed_.Append("size", RandomTokens(100, 1))));
    const int64_t bytes = undisturbed_.Info("size").device_bytes;
    HarnessOptions options;
    options.stats = stats;
    options.engine.cache_bytes = static_cast<int64_t>(on_device * static_cast<double>(bytes));
    options.engine.host_cache_bytes = on_host * WholeSlabs(bytes);
    options.engine.checkpoint_kv = checkpoint_kv;
    options.engine.checkpoints = {.every_tokens = 0, .every = absl::InfiniteDuration(), .keep = 2};
    durable_ = std::make_unique<DurableEngine>(model, options);
  }

  LoopHarness& operator*() { return **durable_; }
  LoopHarness* operator->() { return &**durable_; }
  DurableEngine& durable() { return *durable_; }
  LoopHarness& undisturbed() { return undisturbed_; }

  // In both.
  void Create(const std::string& id, const LearningControls& controls = {}) {
    (*durable_)->Create(id, controls);
    undisturbed_.Create(id, controls);
  }
  void Append(const std::string& id, const std::vector<int32_t>& tokens) {
    Tick();
    EXPECT_TRUE(EndedOk(*(*durable_)->Append(id, tokens))) << id;
    EXPECT_TRUE(EndedOk(*undisturbed_.Append(id, tokens))) << id;
  }
  void Generate(const std::string& id, int64_t count, const std::vector<int32_t>& input = {}) {
    Tick();
    GenerateRequest request = GreedyRequest(count, input);
    request.logprobs = 0;
    const auto actual = (*durable_)->Generate(id, request);
    const auto expected = undisturbed_.Generate(id, request);
    ASSERT_TRUE(EndedOk(*actual)) << id;
    ASSERT_TRUE(EndedOk(*expected)) << id;
    ExpectSame(*actual, *expected);
  }
  void Delete(const std::string& id) {
    EXPECT_TRUE((*durable_)->loop().DeleteSession({"test", id}).ok());
    EXPECT_TRUE(undisturbed_.loop().DeleteSession({"test", id}).ok());
  }
  void ExpectTheSame(const std::string& id) {
    SCOPED_TRACE(id);
    Tick();
    ExpectSame(*Peek(**durable_, id, 12), *Peek(undisturbed_, id, 12));
    EXPECT_EQ((*durable_)->Info(id).version, undisturbed_.Info(id).version);
  }

 private:
  void Tick() { (*durable_)->clock().Advance(absl::Seconds(1)); }

  LoopHarness undisturbed_;
  std::unique_ptr<DurableEngine> durable_;
};

// --- Every kind of state, through every tier. ---

class DiskTierModelTest : public ::testing::TestWithParam<std::tuple<std::string, int, int>> {
 protected:
  std::filesystem::path model() const {
    return std::filesystem::path("tests/golden") / std::get<0>(GetParam());
  }
  LearningControls controls() const {
    return {.max_lag_chunks = std::get<1>(GetParam()), .clip_norm = 0.01F};
  }
  int on_host() const { return std::get<2>(GetParam()); }
};

INSTANTIATE_TEST_SUITE_P(All, DiskTierModelTest,
                         ::testing::Combine(::testing::ValuesIn(GoldenNames()),
                                            ::testing::Values(0, 3), ::testing::Values(0, 1)),
                         [](const auto& parameter) {
                           std::string name = absl::StrCat(std::get<0>(parameter.param), "_lag",
                                                           std::get<1>(parameter.param), "_host",
                                                           std::get<2>(parameter.param));
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST_P(DiskTierModelTest, MoreSessionsThanMemoryHoldsGoOnAsIfTheyHadStayed) {
  TierStats stats;
  TwoEngines engines(model(), 2.5, on_host(), &stats);
  const auto chunk = static_cast<size_t>(engines->model().config.ttt->chunk);
  // Open chunks, and around the end of one.
  const std::vector<size_t> lengths = {2 * chunk - 1, 2 * chunk, 2 * chunk + 1,
                                       3 * chunk + 3, 80,        7};
  std::vector<std::string> ids;
  std::mt19937 random(7);
  for (size_t i = 0; i < lengths.size(); ++i) {
    ids.push_back(absl::StrCat("s", i));
    engines.Create(ids.back(), controls());
    engines.Append(ids.back(), RandomTokens(lengths[i], static_cast<uint32_t>(i)));
  }
  for (int round = 0; round < 4; ++round) {
    std::shuffle(ids.begin(), ids.end(), random);
    for (const std::string& id : ids) {
      SCOPED_TRACE(id);
      if (random() % 3 == 0) {
        engines.Append(id,
                       RandomTokens(1 + random() % (chunk + 2), static_cast<uint32_t>(random())));
      } else {
        engines.Generate(id, 1 + static_cast<int64_t>(random() % 5));
      }
    }
    if (round == 2) engines.durable().CutPowerAndStart();
  }
  for (const std::string& id : ids) engines.ExpectTheSame(id);
  EXPECT_GT(stats.from_device + stats.from_host, 8);
  EXPECT_EQ(stats.parked > 0, on_host() > 0);
  EXPECT_EQ(stats.from_host > 0, on_host() > 0);
  EXPECT_GT(stats.restored, 0);
  EXPECT_EQ(stats.failed, 0);
  EXPECT_TRUE(stats.refused.empty()) << stats.refused[0];
  for (const std::string& id : ids) engines.Delete(id);
  engines->RunAll({});
  EXPECT_EQ(engines->loop().load().device_bytes_reserved, 0);
  EXPECT_EQ(engines->loop().load().host_cache_bytes_used, 0);
}

// --- Who leaves, and who stays. ---

class DiskTierTest : public ::testing::Test {
 protected:
  // Room for one session and a half.
  void Start(int on_host = 0, bool checkpoint_kv = true) {
    engines_ = std::make_unique<TwoEngines>(kModel, 1.5, on_host, &stats_, checkpoint_kv);
  }
  TwoEngines& engines() { return *engines_; }
  LoopHarness& engine() { return **engines_; }
  Residence ResidenceOf(const std::string& id) { return engine().Info(id).residence; }
  // A session of 100 tokens; others must leave for it.
  void Make(const std::string& id) {
    engines_->Create(id);
    engines_->Append(id, RandomTokens(100, static_cast<uint32_t>(id.back())));
  }
  // What fails to write checkpoints.
  void FillDisk() {
    engines_->durable().disk().SetHook([](FileOp op, const std::string& path) {
      const bool writes = op != FileOp::kRead && path.find(".checkpoint") != std::string::npos;
      return writes ? rocksdb::IOStatus::NoSpace("no space left") : rocksdb::IOStatus::OK();
    });
  }
  // Steps until a checkpoint is being written, which then waits for Open.
  void HoldWrites() {
    held_ = true;
    engines_->durable().disk().SetHook([this](FileOp op, const std::string& path) {
      if (op == FileOp::kCreate && path.find(".checkpoint") != std::string::npos) {
        writing_ = true;
        writing_.notify_all();
        held_.wait(true);
      }
      return rocksdb::IOStatus::OK();
    });
  }
  void Open() {
    held_ = false;
    held_.notify_all();
  }
  // Runs `call` until the checkpoint of the session that leaves for it is being written.
  void RunUntilWriting() {
    while (engine().Step()) {
    }
    writing_.wait(false);
  }
  void TearDown() override { Open(); }

  TierStats stats_;
  std::atomic<bool> held_ = false, writing_ = false;
  std::unique_ptr<TwoEngines> engines_;
};

TEST_F(DiskTierTest, WithoutAHostTierAnIdleSessionLeavesForTheDiskAndComesBack) {
  Start();
  Make("a");
  const SessionInfo before = engine().Info("a");
  Make("b");
  const SessionInfo gone = engine().Info("a");
  EXPECT_EQ(gone.residence, Residence::kDisk);
  EXPECT_EQ(gone.device_bytes, 0);
  EXPECT_LT(gone.host_bytes, before.host_bytes / 4);
  EXPECT_EQ(gone.position, before.position);
  EXPECT_EQ(gone.version, before.version);
  EXPECT_EQ(engine().loop().load().parked_sessions, 1);
  EXPECT_EQ(engine().loop().load().disk_sessions, 1);
  engines().Generate("a", 5);
  EXPECT_EQ(stats_.restored, 100);
  EXPECT_EQ(stats_.of, 100);
  EXPECT_EQ(ResidenceOf("a"), Residence::kDevice);
  EXPECT_EQ(ResidenceOf("b"), Residence::kDisk);
  EXPECT_EQ(stats_.from_device, 2);
  EXPECT_EQ(stats_.written, 2);
}

TEST_F(DiskTierTest, OneThatHasNotChangedSinceItsCheckpointLeavesWithoutAnother) {
  Start();
  Make("a");
  Make("b");
  for (int i = 0; i < 3; ++i) {
    for (const std::string id : {"a", "b"}) engines().ExpectTheSame(id);
  }
  EXPECT_EQ(stats_.written, 2);
  EXPECT_GE(stats_.from_device, 6);
}

TEST_F(DiskTierTest, TheHostsLeastRecentlyUsedLeavesItToTheDevices) {
  Start(/*on_host=*/1);
  Make("a");
  Make("b");
  EXPECT_EQ(ResidenceOf("a"), Residence::kHost);
  EXPECT_EQ(stats_.written, 0);
  Make("c");
  EXPECT_EQ(ResidenceOf("a"), Residence::kDisk);
  EXPECT_EQ(ResidenceOf("b"), Residence::kHost);
  EXPECT_EQ(stats_.from_host, 1);
  EXPECT_EQ(stats_.from_device, 0);
  EXPECT_EQ(engine().loop().load().parked_sessions, 2);
  EXPECT_EQ(engine().loop().load().disk_sessions, 1);
  for (const std::string id : {"a", "b", "c"}) engines().ExpectTheSame(id);
}

TEST_F(DiskTierTest, WithoutKvTheStateIsDroppedAndTheLogReplayed) {
  Start(/*on_host=*/0, /*checkpoint_kv=*/false);
  Make("a");
  Make("b");
  EXPECT_EQ(ResidenceOf("a"), Residence::kDisk);
  engines().Generate("a", 5);
  EXPECT_EQ(stats_.restored, 0);
  EXPECT_EQ(stats_.of, 100);
  EXPECT_EQ(stats_.written, 0);
  engines().ExpectTheSame("b");
}

TEST_F(DiskTierTest, ARetryIsRecognisedAfterItsSessionHasLeft) {
  Start();
  engine().Create("a");
  const std::vector<int32_t> tokens = RandomTokens(100, 1);
  EXPECT_TRUE(EndedOk(*engine().Append("a", tokens, false, "first")));
  Make("b");
  ASSERT_EQ(ResidenceOf("a"), Residence::kDisk);
  EXPECT_TRUE(EndedOk(*engine().Append("a", tokens, false, "first")));
  EXPECT_EQ(engine().Info("a").position, 100u);
  // What is logged after that goes on where the log was.
  EXPECT_TRUE(EndedOk(*engine().Append("a", RandomTokens(5, 2), false, "second")));
  engines().durable().CutPowerAndStart();
  EXPECT_TRUE(EndedOk(*engine().Append("a", RandomTokens(5, 2), false, "second")));
  EXPECT_EQ(engine().Info("a").position, 105u);
}

TEST_F(DiskTierTest, ControlsThatAreSetWhileItLiesThereGovernWhatFollows) {
  Start();
  Make("a");
  Make("b");
  ASSERT_EQ(ResidenceOf("a"), Residence::kDisk);
  for (LoopHarness* each : {&engine(), &engines().undisturbed()}) {
    each->SetControls("a", {.max_lag_chunks = 2, .lr_scale = 3});
  }
  engines().Append("a", RandomTokens(40, 5));
  engines().ExpectTheSame("a");
}

TEST_F(DiskTierTest, ASessionWithARequestInFlightStays) {
  Start();
  engine().Create("reading");
  const auto reading = engine().StartAppendStream("reading", {});
  reading->channel->PushInput({.ids = RandomTokens(100, 1)});
  engine().RunAll({reading.get()});
  EXPECT_TRUE(EndedWith(*engine().Generate("", GreedyRequest(5, RandomTokens(100, 2))),
                        absl::StatusCode::kResourceExhausted, ErrorReason::kOutOfMemory));
  EXPECT_EQ(ResidenceOf("reading"), Residence::kDevice);
  reading->channel->CloseInput();
  engine().RunAll({reading.get()});
  EXPECT_TRUE(EndedOk(*reading));
}

TEST_F(DiskTierTest, ASessionThatIsWantedWhileItLeavesStays) {
  for (const int on_host : {0, 1}) {
    SCOPED_TRACE(on_host);
    Start(on_host);
    Make("a");
    if (on_host > 0) Make("b");
    engines().Create("c");
    HoldWrites();
    const auto pressing = engine().StartAppend("c", RandomTokens(100, 3));
    RunUntilWriting();
    GenerateRequest request = GreedyRequest(5);
    request.logprobs = 0;
    const auto wanted = engine().StartGenerate("a", request);
    while (on_host == 0 && wanted->ends == 0 && (engine().Step() || engine().WaitForDisk())) {
      wanted->Read();
    }
    EXPECT_EQ(wanted->tokens.size(), on_host == 0 ? 5u : 0u) << "it needs no write";
    Open();
    engine().RunAll({wanted.get(), pressing.get()});
    EXPECT_TRUE(EndedOk(*wanted));
    EXPECT_TRUE(EndedOk(*pressing));
    const auto expected = engines().undisturbed().Generate("a", request);
    EXPECT_EQ(wanted->TokenIds(), expected->TokenIds());
    EXPECT_TRUE(EndedOk(*engines().undisturbed().Append("c", RandomTokens(100, 3))));
    for (const std::string id : {"a", "c"}) engines().ExpectTheSame(id);
    engines().durable().disk().SetHook(nullptr);
    writing_ = false;
  }
}

TEST_F(DiskTierTest, ASessionThatIsDeletedOrRolledBackWhileItLeavesIsGoneOrBack) {
  for (const bool deleted : {true, false}) {
    SCOPED_TRACE(deleted);
    Start();
    Make("a");
    engines().Create("b");
    HoldWrites();
    const auto pressing = engine().StartAppend("b", RandomTokens(100, 3));
    RunUntilWriting();
    if (deleted) {
      EXPECT_TRUE(engine().loop().DeleteSession({"test", "a"}).ok());
    } else {
      EXPECT_TRUE(engine().loop().RollbackSession({"test", "a"}, 50).ok());
      EXPECT_TRUE(engines().undisturbed().loop().RollbackSession({"test", "a"}, 50).ok());
    }
    Open();
    engine().RunAll({pressing.get()});
    EXPECT_TRUE(EndedOk(*pressing));
    EXPECT_TRUE(EndedOk(*engines().undisturbed().Append("b", RandomTokens(100, 3))));
    engines().ExpectTheSame("b");
    if (!deleted) {
      engines().Append("a", RandomTokens(9, 4));
      engines().ExpectTheSame("a");
    }
    engines().durable().disk().SetHook(nullptr);
    writing_ = false;
  }
}

TEST_F(DiskTierTest, ARestartWhileOneLeavesLosesNothing) {
  for (int operation = 0; operation < 12; ++operation) {
    SCOPED_TRACE(operation);
    Start();
    Make("a");
    engines().Create("b");
    engine().RunAll({});
    engines().durable().CutPowerAt(operation);
    const auto pressing = engine().StartAppend("b", RandomTokens(100, 3));
    while (!engines().durable().power_is_cut() && pressing->ends == 0) {
      if (!engine().Step() && !engine().WaitForDisk()) break;
      pressing->Read();
    }
    engines().durable().CutPowerAndStart();
    engines().ExpectTheSame("a");
  }
}

// --- A disk that does not take it. ---

TEST_F(DiskTierTest, WhatAFullDiskDoesNotTakeStaysAndRequestsAreToldWhy) {
  for (const int on_host : {0, 1}) {
    SCOPED_TRACE(on_host);
    Start(on_host);
    Make("a");
    if (on_host > 0) Make("b");
    const std::string last = on_host > 0 ? "b" : "a";
    engines().Create("c");
    FillDisk();
    for (int attempt = 0; attempt < 2; ++attempt) {
      const auto refused = engine().Append("c", RandomTokens(100, 3));
      EXPECT_TRUE(
          EndedWith(*refused, absl::StatusCode::kResourceExhausted, ErrorReason::kOutOfMemory));
      EXPECT_THAT(std::string(refused->end->message()), HasSubstr("no space left"));
    }
    EXPECT_EQ(ResidenceOf(last), Residence::kDevice);
    EXPECT_EQ(ResidenceOf("a"), on_host > 0 ? Residence::kHost : Residence::kDevice);
    engines().Generate(last, 3);
    engines().durable().disk().SetHook(nullptr);
    engine().clock().Advance(SessionLog::kRetryDelay);
    engines().Append("c", RandomTokens(100, 3));
    EXPECT_EQ(ResidenceOf("a"), Residence::kDisk);
    for (const std::string id : {"a", "c"}) engines().ExpectTheSame(id);
  }
}

TEST_F(DiskTierTest, ARequestDoesNotWaitLongForADiskThatHangs) {
  Start();
  Make("a");
  engines().Create("b");
  HoldWrites();
  const auto pressing = engine().StartAppend("b", RandomTokens(100, 3));
  RunUntilWriting();
  EXPECT_EQ(engine().loop().NextWake(), engine().clock().Now() + DiskTier::kPatience);
  engine().clock().Advance(DiskTier::kPatience);
  while (engine().Step()) {
  }
  pressing->Read();
  EXPECT_TRUE(
      EndedWith(*pressing, absl::StatusCode::kResourceExhausted, ErrorReason::kOutOfMemory));
  EXPECT_EQ(ResidenceOf("a"), Residence::kDevice);
  Open();
  engine().RunAll({});
  // By now it is written.
  engines().Append("b", RandomTokens(100, 3));
  EXPECT_EQ(stats_.written, 1);
  engines().ExpectTheSame("a");
}

TEST_F(DiskTierTest, SessionsThatAreNotKeptOnADiskStay) {
  LoopHarness measure(kModel);
  measure.Create("a");
  EXPECT_TRUE(EndedOk(*measure.Append("a", RandomTokens(100, 1))));
  HarnessOptions options;
  options.engine.cache_bytes = measure.Info("a").device_bytes * 3 / 2;
  LoopHarness in_memory(kModel, options);
  in_memory.Create("a");
  in_memory.Create("b");
  EXPECT_TRUE(EndedOk(*in_memory.Append("a", RandomTokens(100, 1))));
  EXPECT_TRUE(EndedWith(*in_memory.Append("b", RandomTokens(100, 2)),
                        absl::StatusCode::kResourceExhausted, ErrorReason::kOutOfMemory));
  EXPECT_EQ(in_memory.Info("a").residence, Residence::kDevice);
}

// --- All at once. ---

// Requests of many sessions wait for memory and for the disk together.
TEST_F(DiskTierTest, SessionsTakeTurns) {
  for (const int on_host : {0, 1}) {
    SCOPED_TRACE(on_host);
    Start(on_host);
    std::vector<std::string> ids;
    for (int i = 0; i < 8; ++i) {
      ids.push_back(absl::StrCat("s", i));
      Make(ids.back());
    }
    std::vector<std::unique_ptr<Call>> calls;
    std::vector<Call*> all;
    for (const std::string& id : ids) {
      calls.push_back(engine().StartGenerate(id, GreedyRequest(6)));
      all.push_back(calls.back().get());
    }
    engine().RunAll(all);
    for (size_t i = 0; i < ids.size(); ++i) {
      ASSERT_TRUE(EndedOk(*calls[i]));
      const auto expected = engines().undisturbed().Generate(ids[i], GreedyRequest(6));
      EXPECT_EQ(calls[i]->TokenIds(), expected->TokenIds());
    }
    EXPECT_EQ(engine().loop().load().device_bytes_reserved,
              engine().loop().load().device_bytes_used);
  }
}

// With acknowledgements that do not wait for the disk its log may be behind.
TEST_F(DiskTierTest, ALogThatIsNotWrittenYetIsWaitedFor) {
  LoopHarness measure(kModel);
  measure.Create("a");
  EXPECT_TRUE(EndedOk(*measure.Append("a", RandomTokens(100, 1))));
  HarnessOptions options;
  options.engine.cache_bytes = measure.Info("a").device_bytes * 3 / 2;
  DurableEngine durable(kModel, options, Durability::kNone);
  for (int i = 0; i < 20; ++i) {
    const std::string id = absl::StrCat("s", i % 4);
    if (i < 4) durable->Create(id);
    EXPECT_TRUE(EndedOk(*durable->Append(id, RandomTokens(20, static_cast<uint32_t>(i)))));
  }
  for (int i = 0; i < 4; ++i) EXPECT_EQ(durable->Info(absl::StrCat("s", i)).position, 100u);
}

}  // namespace
}  // namespace mneme
