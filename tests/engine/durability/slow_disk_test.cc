// What clients are told waits for the disk, or does not, and one that hangs is noticed.

#include <gtest/gtest.h>

#include <future>
#include <string>

#include "tests/engine/durability/durable_engine.h"

namespace mneme {
namespace {

using rocksdb::IOStatus;

const std::filesystem::path kModel = "tests/golden/qwen3-hidden-target";

// Keeps syncs, or other operations, from returning until it is told to.
class SlowDisk {
 public:
  explicit SlowDisk(FaultyFileSystem& disk, FileOp slow = FileOp::kSync) {
    disk.SetHook([slow, gate = gate_.get_future().share()](FileOp op, const std::string&) {
      if (op == slow) gate.wait();
      return IOStatus::OK();
    });
  }
  void GoOn() { gate_.set_value(); }

 private:
  std::promise<void> gate_;
};

TEST(SlowDiskTest, NothingIsToldBeforeItIsSyncedAndTheEngineStaysAFewStepsAhead) {
  DurableEngine durable(kModel);
  durable->Create("s");
  durable->Create("t");
  EXPECT_TRUE(EndedOk(*durable->Append("t", {1, 2, 3})));
  SlowDisk disk(durable.disk());
  const auto call = durable->StartGenerate("s", GreedyRequest(50, {1, 2, 3}));
  while (durable->Step()) {
  }
  call->Read();
  EXPECT_TRUE(call->tokens.empty());
  const int64_t position = (*durable->loop().FindSession({"test", "s"}))->position();
  EXPECT_GT(position, 4) << "it computes while the disk works";
  EXPECT_LE(position, 3 + static_cast<int64_t>(SessionLog::kMaxStepsAhead) + 1);
  EXPECT_GT(durable->loop().requests_in_flight(), 1) << "what waits for the disk counts";

  GenerateRequest request = GreedyRequest(3);
  request.learn = false;
  const auto other = durable->StartGenerate("t", request);
  while (durable->Step()) {
  }
  other->Read();
  EXPECT_TRUE(EndedOk(*other)) << "it has nothing to wait for";
  const auto same = durable->StartGenerate("s", request);

  EXPECT_TRUE(durable->loop().log().Health().ok());
  durable->clock().Advance(SessionLog::kStallLimit);
  EXPECT_EQ(durable->loop().log().Health().code(), absl::StatusCode::kUnavailable);
  disk.GoOn();
  durable->RunAll({call.get(), same.get()});
  EXPECT_TRUE(EndedOk(*call));
  EXPECT_EQ(call->tokens.size(), 50u);
  EXPECT_TRUE(EndedOk(*same));
  EXPECT_TRUE(durable->loop().log().Health().ok());
}

class UnawaitedDiskTest : public ::testing::Test {
 protected:
  UnawaitedDiskTest() {
    durable_->Create("s");
    durable_->Create("t");
    durable_->RunAll({});
  }
  // Steps until nothing goes on without the disk.
  void StepAll(Call* call = nullptr) {
    do {
      if (call != nullptr) call->Read();
    } while (durable_->Step());
  }
  uint64_t PositionOf(const std::string& id) { return durable_->Info(id).position; }

  DurableEngine durable_{kModel, {}, Durability::kNone};
};

TEST_F(UnawaitedDiskTest, AllIsToldAtOnceAndADiskThatHangsIsNoticed) {
  SlowDisk disk(durable_.disk(), FileOp::kAppend);
  const auto told = durable_->StartGenerate("s", GreedyRequest(20, {1, 2, 3}));
  StepAll(told.get());
  EXPECT_TRUE(EndedOk(*told)) << "nothing waits for the disk";
  EXPECT_TRUE(durable_->loop().load().log_writable);
  const auto running = durable_->StartGenerate("s", GreedyRequest(100));
  durable_->StepUntilTokens(running.get(), 5);
  durable_->clock().Advance(SessionLog::kStallLimit);
  EXPECT_EQ(durable_->loop().log().Health().code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(durable_->loop().load().log_writable);
  const uint64_t position = PositionOf("s");
  StepAll(running.get());
  EXPECT_EQ(PositionOf("s"), position);
  const auto refused = durable_->StartAppend("t", {1, 2});
  refused->Read();
  EXPECT_TRUE(EndedWith(*refused, absl::StatusCode::kUnavailable, ErrorReason::kStorageFailed));
  disk.GoOn();
  durable_->RunAll({running.get()});
  EXPECT_TRUE(EndedOk(*running)) << "the disk says when it goes on";
  EXPECT_TRUE(durable_->loop().log().Health().ok());
}

TEST_F(UnawaitedDiskTest, WhatIsNotWrittenIsBounded) {
  SlowDisk disk(durable_.disk(), FileOp::kAppend);
  const auto call = durable_->StartGenerate("s", GreedyRequest(400, {1}));
  StepAll(call.get());
  EXPECT_EQ(call->ends, 0);
  const auto limit = static_cast<int64_t>(SessionLog::kMaxStepsUnwritten);
  EXPECT_LE(durable_->loop().load().log_pending_batches, limit);
  EXPECT_LE(PositionOf("s"), SessionLog::kMaxStepsUnwritten + 1);
  disk.GoOn();
  durable_->RunAll({call.get()});
  EXPECT_TRUE(EndedOk(*call));
  EXPECT_EQ(call->tokens.size(), 400u);
}

TEST_F(UnawaitedDiskTest, DeletionsAreWaitedFor) {
  SlowDisk disk(durable_.disk(), FileOp::kRemove);
  ASSERT_TRUE(durable_->loop().DeleteSession({"test", "s"}).ok());
  absl::Status answer = absl::UnknownError("not told");
  durable_->loop().log().WhenDurable([&answer](const absl::Status& status) { answer = status; });
  const auto other = durable_->StartAppend("t", {1, 2});
  StepAll();
  EXPECT_TRUE(absl::IsUnknown(answer)) << answer;
  disk.GoOn();
  durable_->RunAll({other.get()});
  EXPECT_TRUE(answer.ok()) << answer;
  EXPECT_TRUE(EndedOk(*other));
}

}  // namespace
}  // namespace mneme
