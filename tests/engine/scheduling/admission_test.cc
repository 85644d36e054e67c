// Who is let into the queue, and when those who are not should come again.

#include "engine/scheduling/admission.h"

#include <string>

#include "engine/error.h"
#include "engine/scheduling/tenants.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace mneme {
namespace {

constexpr QueueLimits kLimits = {.requests = 80, .tokens = 8000};

// A queue that one tenant, the only one there is, uses.
QueueState Alone(int64_t requests, int64_t tokens) {
  return {
      .requests = requests, .tokens = tokens, .tenant_requests = requests, .tenant_tokens = tokens};
}

TEST(CheckQueueTest, OneTenantMayFillTheQueueToItsEnd) {
  EXPECT_TRUE(CheckQueue(kLimits, Alone(79, 0), 0).ok());
  EXPECT_TRUE(CheckQueue(kLimits, Alone(5, 7900), 100).ok());
  for (const absl::Status& full :
       {CheckQueue(kLimits, Alone(80, 0), 0), CheckQueue(kLimits, Alone(5, 7901), 100)}) {
    EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(GetErrorInfo(full).reason, ErrorReason::kQueueFull);
    EXPECT_TRUE(GetErrorInfo(full).retryable);
    EXPECT_EQ(GetErrorInfo(full).retry_delay, absl::Seconds(1)) << "no rate is known";
  }
}

TEST(CheckQueueTest, WhatTheWholeQueueCannotHoldIsRefusedForGood) {
  const absl::Status status = CheckQueue(kLimits, Alone(0, 0), 8001);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(GetErrorInfo(status).retryable);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("--max_queued_tokens"));
}

TEST(CheckQueueTest, TheRetryDelayIsWhatAnEighthOfTheQueueTakesToEnd) {
  QueueState queue = Alone(80, 8000);
  queue.requests_per_second = 4;
  queue.tokens_per_second = 500;
  EXPECT_EQ(GetErrorInfo(CheckQueue(kLimits, queue, 0)).retry_delay, absl::Milliseconds(2500));
  queue.requests = queue.tenant_requests = 0;
  EXPECT_EQ(GetErrorInfo(CheckQueue(kLimits, queue, 1)).retry_delay, absl::Seconds(2));
  EXPECT_EQ(GetErrorInfo(CheckQueue(kLimits, queue, 4000)).retry_delay, absl::Seconds(8));
}

TEST(DrainTimeTest, IsNeverAbsurd) {
  EXPECT_EQ(DrainTime(1e9, 1), absl::Minutes(1));
  EXPECT_EQ(DrainTime(1, 1e9), absl::Milliseconds(100));
  EXPECT_EQ(DrainTime(5, 0), absl::Seconds(1));
}

TEST(TenantsTest, WhoFillsTheQueueLeavesRoomForOthers) {
  Tenants tenants({{"paying", 3}});
  tenants.Count("other", true, 0);  // tenants share here
  int hostile = 0;
  while (CheckQueue(kLimits, tenants.StateFor("hostile"), 0).ok()) {
    tenants.Count("hostile", false, 0);
    ++hostile;
  }
  EXPECT_EQ(hostile, 69) << "an eighth is kept for those below their share";
  int paying = 0;
  while (CheckQueue(kLimits, tenants.StateFor("paying"), 0).ok()) {
    tenants.Count("paying", false, 0);
    ++paying;
  }
  EXPECT_EQ(paying, 10);
}

TEST(TenantsTest, SharesAreOfWhatTheStepsCost) {
  Tenants tenants({{"b", 2}});
  const absl::Time now = absl::UnixEpoch();
  tenants.Charge("a", now, 300);
  tenants.Charge("b", now, 100);
  tenants.Count("b", true, 7);
  const auto loads = tenants.Loads(now);
  ASSERT_EQ(loads.size(), 2u);
  EXPECT_EQ(loads[0].name, "a");
  EXPECT_DOUBLE_EQ(loads[0].share, 0.75);
  EXPECT_EQ(loads[1].weight, 2);
  EXPECT_EQ(loads[1].running_requests, 1);
  EXPECT_EQ(loads[1].pending_tokens, 7);
}

TEST(TenantsTest, WhoIsLongGoneIsForgotten) {
  Tenants tenants({});
  absl::Time now = absl::UnixEpoch();
  tenants.Charge("gone", now, 100);
  tenants.Count("gone", true, 0);
  tenants.BeginCount(now);
  EXPECT_EQ(tenants.Loads(now).size(), 1u) << "it had something of late";
  now += absl::Seconds(100);
  tenants.Charge("here", now, 100);
  tenants.Count("here", true, 0);
  tenants.BeginCount(now);
  EXPECT_EQ(tenants.Loads(now).size(), 1u);
}

TEST(DecayingRateTest, IsThatOfTheLastSeconds) {
  DecayingRate rate;
  absl::Time now = absl::UnixEpoch();
  EXPECT_EQ(rate.PerSecond(now), 0);
  for (int i = 0; i < 1000; ++i, now += absl::Milliseconds(100)) rate.Add(now, 5);
  EXPECT_NEAR(rate.PerSecond(now), 50, 1);
  EXPECT_LT(rate.PerSecond(now + absl::Seconds(60)), 1);
  DecayingRate young;
  young.Add(now, 5);
  young.Add(now + absl::Milliseconds(500), 5);
  EXPECT_NEAR(young.PerSecond(now + absl::Seconds(1)), 10, 1);
}

}  // namespace
}  // namespace mneme
