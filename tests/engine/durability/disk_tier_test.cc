// Invariant: sessions that leave memory for the disk go on as if they had stayed, and the one not
// used for longest leaves first (DESIGN §8).

#include "engine/durability/disk_tier.h"

#include <algorithm>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/engine/durability/disk_tier_fixture.h"

namespace mneme {
namespace {

constexpr char kModel[] = "tests/golden/qwen3-hidden-target";

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

// --- Who leaves, and how it comes back. ---

using DiskTierTest = DiskTierFixture;

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
  Start(/*on_host=*/0, {.checkpoint_kv = false});
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

// --- A disk that holds only so much. ---

TEST_F(DiskTierTest, BeyondTheLimitTheCheckpointsOfThoseUnusedForLongestAreErased) {
  Start();
  Make("a");
  Make("b");
  engine().RunAll({});
  const int64_t bytes = engine().Info("a").disk_bytes;
  EXPECT_GT(bytes, 0);
  EXPECT_EQ(engine().loop().load().disk_cache_bytes_used, bytes);
  for (const EngineOptions& limit : {EngineOptions{.disk_cache_bytes = 5 * bytes / 2},
                                     EngineOptions{.tenant_disk_cache_bytes = 5 * bytes / 2}}) {
    Start(/*on_host=*/0, limit);
    for (const std::string id : {"a", "b", "c", "d"}) Make(id);
    for (const bool restarted : {false, true}) {
      SCOPED_TRACE(restarted);
      if (restarted) engines().durable().Start();
      engine().RunAll({});
      EXPECT_EQ(engine().loop().load().disk_cache_bytes_used, 2 * bytes);
      EXPECT_EQ(engine().Info("a").disk_bytes, 0);
      EXPECT_EQ(engine().Info("b").disk_bytes, bytes);
      EXPECT_EQ(engine().Info("c").disk_bytes, bytes);
    }
    engines().ExpectTheSame("a");
    EXPECT_EQ(stats_.restored, 0) << "its log is there";
    engines().ExpectTheSame("c");
    EXPECT_EQ(stats_.restored, 100);
    for (const std::string id : {"a", "b", "c", "d"}) engines().Delete(id);
    engine().RunAll({});
    EXPECT_EQ(engine().loop().load().disk_cache_bytes_used, 0);
  }
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
