// What was acknowledged survives power cuts at any operation, and disks that fail.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <future>
#include <mutex>
#include <random>

#include "storage/session_store.h"
#include "tests/storage/store_harness.h"

namespace mneme {
namespace {

using rocksdb::IOStatus;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// Lets commits run until all have completed, or the disk has lost its power.
class Commits {
 public:
  explicit Commits(StoreHarness& harness) : harness_(harness) {}

  void Start(LogBatch batch) {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++started_;
    harness_.store().Commit(std::move(batch), [this](const absl::Status& status) {
      const std::lock_guard<std::mutex> done(mutex_);
      if (status.ok()) ++completed_;
      changed_.notify_all();
    });
  }
  // Cuts the power at the operation with this number.
  void CutPowerAt(int operation) {
    harness_.disk().SetHook([this, operation](FileOp, const std::string&) {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (operations_++ != operation) return IOStatus::OK();
      harness_.disk().CutPower();
      cut_ = true;
      changed_.notify_all();
      return IOStatus::IOError("the power is cut");
    });
  }
  // How many have completed, which were the first.
  int Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return cut_ || completed_ == started_; });
    return completed_;
  }
  bool cut() const { return cut_; }

 private:
  StoreHarness& harness_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int started_ = 0, completed_ = 0, operations_ = 0;
  bool cut_ = false;
};

// Tokens 0, 1, …, count - 1.
std::vector<int32_t> Counting(size_t count) {
  std::vector<int32_t> tokens(count);
  for (size_t i = 0; i < count; ++i) tokens[i] = static_cast<int32_t>(i);
  return tokens;
}

TEST(DurabilityTest, SyncLosesNothingAcknowledgedAtAPowerCut) {
  std::mt19937 random(17);
  StoreHarness harness;
  const StoreId id = harness.MakeSession("s", Counting(1));
  int64_t logged = 1;
  for (int round = 0; round < 40; ++round) {
    Commits commits(harness);
    commits.CutPowerAt(static_cast<int>(random() % 24));
    for (int32_t i = 0; i < 16; ++i) {
      const auto token = static_cast<int32_t>(logged + i);
      commits.Start({LogTokens(id, logged + i, {token})});
    }
    const int acknowledged = commits.Wait();
    harness.CutPower();
    ASSERT_TRUE(harness.Open().ok());
    ASSERT_THAT(harness.listing().sessions, SizeIs(1)) << "round " << round;
    const auto state = harness.store().Load(id);
    ASSERT_TRUE(state.ok()) << state.status();
    ASSERT_GE(state->position(), logged + acknowledged) << "round " << round;
    ASSERT_EQ(state->tokens, Counting(state->tokens.size()));
    logged = state->position();
  }
}

TEST(DurabilityTest, AsyncLosesOnlyAnEndAtAPowerCut) {
  StoreHarness harness(Durability::kAsync);
  const StoreId id = harness.MakeSession("s", Counting(4));
  ASSERT_TRUE(harness.Open().ok());  // closing has synced
  ASSERT_TRUE(harness.Commit({LogTokens(id, 4, {4})}).ok());
  harness.CutPower();
  ASSERT_TRUE(harness.Open().ok());
  EXPECT_THAT(harness.store().Load(id)->tokens, ElementsAre(0, 1, 2, 3));
}

TEST(DurabilityTest, AsyncSyncsWhenTheIntervalEndsAlsoWhileBatchesCome) {
  std::atomic<std::chrono::minutes> time = std::chrono::minutes(0);
  StoreHarness harness(Durability::kAsync, LogWriterOptions().max_record_bytes,
                       [&time] { return std::chrono::steady_clock::time_point(time.load()); });
  const StoreId id = harness.MakeSession("s", Counting(1));
  for (int32_t i = 1; i <= 10; ++i) {
    time = std::chrono::minutes(10 * i);
    ASSERT_TRUE(harness.Commit({LogTokens(id, i, {i})}).ok());
  }
  harness.CutPower();
  ASSERT_TRUE(harness.Open().ok());
  EXPECT_THAT(harness.listing().sessions, SizeIs(1));
  const auto state = harness.store().Load(id);
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_GE(state->position(), 5) << "what was written an hour before or earlier";
}

TEST(DurabilityTest, CreatingAtAPowerCutGivesAWholeSessionOrNone) {
  for (int operation = 0;; ++operation) {
    StoreHarness harness;
    Commits commits(harness);
    commits.CutPowerAt(operation);
    const StoreId id = StoreId::Random();
    commits.Start({CreateSession{id, {.id = "s"}}, LogTokens(id, 0, Counting(3))});
    const int acknowledged = commits.Wait();
    const bool cut = commits.cut();
    harness.CutPower();
    ASSERT_TRUE(harness.Open().ok());
    EXPECT_THAT(harness.listing().damaged, IsEmpty()) << operation;
    ASSERT_GE(harness.listing().sessions.size(), static_cast<size_t>(acknowledged)) << operation;
    if (!harness.listing().sessions.empty()) {
      EXPECT_THAT(harness.store().Load(id)->tokens, SizeIs(3)) << operation;
    }
    if (!cut) break;
  }
}

TEST(DurabilityTest, DeletingAtAPowerCutGivesAWholeSessionOrNone) {
  for (int operation = 0;; ++operation) {
    StoreHarness harness;
    const StoreId id = harness.MakeSession("s", Counting(3));
    const std::string key_path = harness.data_dir() + "/keys/" + id.ToHex() + ".key";
    Commits commits(harness);
    commits.CutPowerAt(operation);
    commits.Start({DeleteSession{id}});
    const int acknowledged = commits.Wait();
    const bool cut = commits.cut();
    harness.CutPower();
    EXPECT_FALSE(acknowledged == 1 && std::filesystem::exists(key_path)) << operation;
    ASSERT_TRUE(harness.Open().ok());
    EXPECT_THAT(harness.listing().damaged, IsEmpty()) << operation;
    ASSERT_LE(harness.listing().sessions.size(), static_cast<size_t>(1 - acknowledged));
    if (harness.listing().sessions.empty()) {
      EXPECT_FALSE(std::filesystem::exists(key_path)) << operation;
    } else {
      EXPECT_THAT(harness.store().Load(id)->tokens, SizeIs(3)) << operation;
    }
    if (!cut) break;
  }
}

// A disk that fails in one way for a number of times, counted from now.
void FailNext(StoreHarness& harness, FileOp op, int times, const IOStatus& error) {
  auto left = std::make_shared<std::atomic<int>>(times);
  harness.disk().SetHook([=](FileOp asked, const std::string&) {
    return asked == op && left->fetch_sub(1) > 0 ? error : IOStatus::OK();
  });
}

TEST(DurabilityTest, WritesThatFailAreRepeatedUntilTheDiskTakesThem) {
  const std::vector<IOStatus> errors = {IOStatus::NoSpace("full"), IOStatus::IOError("EIO")};
  for (const FileOp op :
       {FileOp::kAppend, FileOp::kSync, FileOp::kCreate, FileOp::kRename, FileOp::kSyncDirectory}) {
    for (const IOStatus& error : errors) {
      for (const int times : {1, 2, 7}) {
        SCOPED_TRACE(testing::Message() << static_cast<int>(op) << error.ToString() << times);
        StoreHarness harness;
        const StoreId id = harness.MakeSession("s", Counting(3));
        FailNext(harness, op, times, error);
        ASSERT_TRUE(harness.Commit({LogTokens(id, 3, {3})}).ok());
        const StoreId created = harness.MakeSession("created", Counting(2));
        ASSERT_TRUE(harness.Commit({LogTokens(id, 4, {4})}).ok());
        EXPECT_TRUE(harness.store().health().status.ok());
        EXPECT_THAT(harness.store().Load(id)->tokens, SizeIs(5));
        harness.CutPower();
        ASSERT_TRUE(harness.Open().ok());
        EXPECT_EQ(harness.store().Load(id)->tokens, Counting(5));
        EXPECT_EQ(harness.store().Load(created)->tokens, Counting(2));
      }
    }
  }
}

TEST(DurabilityTest, AFullDiskIsReportedAndStillRead) {
  StoreHarness harness;
  const StoreId id = harness.MakeSession("s", Counting(3));
  std::promise<void> failed_twice;
  std::atomic<int> failures = 0;
  harness.disk().SetHook([&](FileOp op, const std::string&) {
    if (op == FileOp::kRead) return IOStatus::OK();
    if (++failures == 4) failed_twice.set_value();
    return IOStatus::NoSpace("full");
  });
  std::promise<absl::Status> done;
  harness.store().Commit({LogTokens(id, 3, {3})},
                         [&done](const absl::Status& status) { done.set_value(status); });
  failed_twice.get_future().wait();
  EXPECT_TRUE(absl::IsResourceExhausted(harness.store().health().status));
  EXPECT_EQ(harness.store().health().pending_batches, 1);
  EXPECT_THAT(harness.store().Load(id)->tokens, SizeIs(3));
  harness.disk().SetHook(nullptr);
  EXPECT_TRUE(done.get_future().get().ok());
  EXPECT_TRUE(harness.store().health().status.ok());
  EXPECT_THAT(harness.store().Load(id)->tokens, SizeIs(4));
}

TEST(DurabilityTest, ClosingOnAFailedDiskEndsWhatWaits) {
  StoreHarness harness;
  const StoreId id = harness.MakeSession("s", Counting(3));
  FailNext(harness, FileOp::kAppend, 1 << 30, IOStatus::IOError("EIO"));
  std::promise<absl::Status> done;
  harness.store().Commit({LogTokens(id, 3, {3})},
                         [&done](const absl::Status& status) { done.set_value(status); });
  harness.Close();
  EXPECT_TRUE(absl::IsUnavailable(done.get_future().get()));
}

TEST(DurabilityTest, NothingIsWrittenBehindWhatWasGivenUp) {
  StoreHarness harness;
  const StoreId id = harness.MakeSession("s", Counting(3));
  std::promise<void> failing;
  std::atomic<int> failures = 0;
  harness.disk().SetHook([&](FileOp op, const std::string&) {
    if (op != FileOp::kAppend) return IOStatus::OK();
    if (++failures == 1) failing.set_value();
    return IOStatus::IOError("EIO");
  });
  harness.store().Commit({LogTokens(id, 3, {3})}, [&](const absl::Status& status) {
    EXPECT_TRUE(absl::IsUnavailable(status));
    harness.disk().SetHook(nullptr);  // too late
  });
  failing.get_future().wait();
  absl::Status second;
  harness.store().Commit({LogTokens(id, 4, {4})},
                         [&second](const absl::Status& status) { second = status; });
  ASSERT_TRUE(harness.Open().ok());
  EXPECT_TRUE(absl::IsUnavailable(second));
  EXPECT_THAT(harness.listing().damaged, IsEmpty());
  EXPECT_EQ(harness.store().Load(id)->tokens, Counting(3));
}

TEST(DurabilityTest, BatchesThatComeDuringASyncShareTheNext) {
  StoreHarness harness;
  const StoreId id = harness.MakeSession("s", Counting(1));
  std::promise<void> syncing, disk;
  const std::shared_future<void> disk_goes_on = disk.get_future().share();
  std::atomic<int> syncs = 0;
  harness.disk().SetHook([&](FileOp op, const std::string&) {
    if (op == FileOp::kSync && ++syncs == 1) {
      syncing.set_value();
      disk_goes_on.wait();
    }
    return IOStatus::OK();
  });
  Commits commits(harness);
  commits.Start({LogTokens(id, 1, {1})});
  syncing.get_future().wait();
  for (int32_t i = 2; i < 12; ++i) commits.Start({LogTokens(id, i, {i})});
  disk.set_value();
  EXPECT_EQ(commits.Wait(), 11);
  EXPECT_EQ(syncs, 2);
  EXPECT_EQ(harness.store().Load(id)->tokens, Counting(12));
}

}  // namespace
}  // namespace mneme
