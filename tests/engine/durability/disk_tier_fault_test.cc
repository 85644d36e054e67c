// Invariant: a session that is leaving for the disk is never between the two: it stays if it is
// wanted, or if the disk does not take it, and nothing is lost (DESIGN §2.9, §8).

#include <atomic>
#include <future>
#include <string>

#include "engine/durability/disk_tier.h"
#include "engine/durability/storage_error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/durability/disk_tier_fixture.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;

using DiskTierFaultTest = DiskTierFixture;

TEST_F(DiskTierFaultTest, ASessionThatIsWantedWhileItLeavesStays) {
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

TEST_F(DiskTierFaultTest, ASessionThatIsDeletedOrRolledBackWhileItLeavesIsGoneOrBack) {
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

TEST_F(DiskTierFaultTest, ARestartWhileOneLeavesLosesNothing) {
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

TEST_F(DiskTierFaultTest, WhatAFullDiskDoesNotTakeStaysAndRequestsAreToldWhy) {
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
    engine().clock().Advance(kStorageRetryDelay);
    engines().Append("c", RandomTokens(100, 3));
    EXPECT_EQ(ResidenceOf("a"), Residence::kDisk);
    for (const std::string id : {"a", "c"}) engines().ExpectTheSame(id);
  }
}

TEST_F(DiskTierFaultTest, ARequestDoesNotWaitLongForADiskThatHangs) {
  Start();
  Make("a");
  engines().Create("b");
  engine().RunAll({});  // the log is written: what the request is told waits for nothing
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

TEST_F(DiskTierFaultTest, WhatTheDiskDoesNotRemoveIsTriedAgainLater) {
  Start(/*on_host=*/0, {.disk_cache_bytes = 1});
  std::atomic<int> removals = 0;
  engines().durable().disk().SetHook([&removals](FileOp op, const std::string& path) {
    if (op != FileOp::kRemove || path.find("/checkpoints/") == std::string::npos) {
      return rocksdb::IOStatus::OK();
    }
    ++removals;
    return rocksdb::IOStatus::IOError("read-only file system");
  });
  const auto run = [this] {
    for (int i = 0; i < 1000 && (engine().Step() || engine().WaitForDisk()); ++i) {
    }
  };
  Make("a");
  engine().Create("b");
  const auto pressing = engine().StartAppend("b", RandomTokens(100, 3));  // for which a leaves
  run();
  pressing->Read();
  EXPECT_TRUE(EndedOk(*pressing));
  EXPECT_EQ(removals, 1);
  EXPECT_GT(engine().Info("a").disk_bytes, 0);
  EXPECT_EQ(engine().loop().NextWake(), engine().clock().Now() + kStorageRetryDelay);
  engine().clock().Advance(kStorageRetryDelay);
  run();
  EXPECT_EQ(removals, 2);
  engines().durable().disk().SetHook(nullptr);
  engine().clock().Advance(kStorageRetryDelay);
  run();
  EXPECT_EQ(engine().Info("a").disk_bytes, 0);
  EXPECT_EQ(engine().loop().NextWake(), absl::InfiniteFuture());
}

TEST_F(DiskTierFaultTest, ACheckpointThatIsErasedWhileItIsToldOfIsNoneToLeaveWith) {
  Start(/*on_host=*/0, {.disk_cache_bytes = 1});
  const auto ask = [this] {
    engine().loop().CheckpointSession(
        {"test", "a"}, "", [](const auto& taken) { EXPECT_TRUE(taken.ok()) << taken.status(); });
  };
  // The first cannot be erased, which is tried again while the second is being written.
  engines().durable().disk().SetHook([](FileOp op, const std::string& path) {
    const bool refused = op == FileOp::kRemove && path.find("/checkpoints/") != std::string::npos;
    return refused ? rocksdb::IOStatus::IOError("EIO") : rocksdb::IOStatus::OK();
  });
  Make("a");
  ask();
  engine().RunAll({});
  engines().Append("a", {1, 2, 3});
  HoldWrites();
  ask();
  RunUntilWriting();
  engine().clock().Advance(kStorageRetryDelay);
  while (engine().Step()) {
  }
  // The engine hears of both together.
  std::promise<void> erased;
  engine().loop().log().RunOnDisk([&erased](SessionStore&) {
    erased.set_value();
    return [] {};
  });
  Open();
  erased.get_future().wait();
  engine().RunAll({});
  EXPECT_EQ(stats_.written, 2);
  EXPECT_EQ(engine().Info("a").disk_bytes, 0);

  Make("b");
  EXPECT_EQ(ResidenceOf("a"), Residence::kDisk);
  EXPECT_EQ(stats_.written, 3) << "one to leave with";
  engines().ExpectTheSame("a");
}

}  // namespace
}  // namespace mneme
