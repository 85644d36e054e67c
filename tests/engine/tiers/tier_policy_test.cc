#include "engine/tiers/tier_policy.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace mneme {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

ParkCandidate Unused(int64_t seconds, int64_t bytes, std::string tenant = "t") {
  return {.tenant = std::move(tenant),
          .last_used = absl::FromUnixSeconds(1000 - seconds),
          .device_bytes = bytes,
          .host_bytes = bytes};
}

TEST(TierPolicyTest, TheLongestUnusedGoFirstAndNoMoreThanAreWanted) {
  const std::vector<ParkCandidate> candidates = {Unused(1, 10), Unused(3, 10), Unused(2, 10)};
  EXPECT_THAT(ChooseToPark(candidates, 1, {.free_bytes = 100}), ElementsAre(1));
  EXPECT_THAT(ChooseToPark(candidates, 11, {.free_bytes = 100}), ElementsAre(1, 2));
  EXPECT_THAT(ChooseToPark(candidates, 1000, {.free_bytes = 100}), ElementsAre(1, 2, 0));
  EXPECT_THAT(ChooseToPark(candidates, 0, {.free_bytes = 100}), IsEmpty());
}

TEST(TierPolicyTest, LeasedAndEmptySessionsStay) {
  std::vector<ParkCandidate> candidates = {Unused(9, 10), Unused(8, 0), Unused(7, 10)};
  candidates[0].leased = true;
  EXPECT_THAT(ChooseToPark(candidates, 100, {.free_bytes = 100}), ElementsAre(2));
}

TEST(TierPolicyTest, WhatTheHostHasNoRoomForIsPassedOver) {
  const std::vector<ParkCandidate> candidates = {Unused(3, 50), Unused(2, 20), Unused(1, 20)};
  EXPECT_THAT(ChooseToPark(candidates, 100, {.free_bytes = 49}), ElementsAre(1, 2));
  EXPECT_THAT(ChooseToPark(candidates, 100, {.free_bytes = 39}), ElementsAre(1));
}

TEST(TierPolicyTest, ATenantHasItsLimitCountingWhatItHasAlready) {
  const std::vector<ParkCandidate> candidates = {Unused(4, 10, "a"), Unused(3, 10, "a"),
                                                 Unused(2, 10, "b"), Unused(1, 10, "b")};
  const HostTier host = {
      .free_bytes = 100, .tenant_limit_bytes = 20, .bytes_of_tenant = {{"a", 10}}};
  EXPECT_THAT(ChooseToPark(candidates, 100, host), ElementsAre(0, 2, 3));
}

ParkCandidate Parked(int64_t seconds, int64_t bytes, std::string tenant = "t") {
  ParkCandidate parked = Unused(seconds, bytes, std::move(tenant));
  parked.device_bytes = 0;
  return parked;
}

TEST(TierPolicyTest, WithoutAHostTheLongestUnusedLeavesForTheDisk) {
  std::vector<ParkCandidate> candidates = {Unused(1, 10), Unused(3, 10), Unused(2, 10)};
  EXPECT_EQ(ChooseToDrop(candidates, {}), 1u);
  candidates[1].leased = true;
  EXPECT_EQ(ChooseToDrop(candidates, {}), 2u);
  EXPECT_EQ(ChooseToDrop({}, {}), std::nullopt);
}

TEST(TierPolicyTest, AParkedOneLeavesTheHostToOneThatWasUsedLater) {
  const HostTier host = {.limit_bytes = 40};
  EXPECT_EQ(ChooseToDrop({Unused(5, 10), Parked(6, 10), Parked(7, 10)}, host), 2u);
  EXPECT_EQ(ChooseToDrop({Unused(5, 10), Parked(4, 10)}, host), 0u);
  EXPECT_EQ(ChooseToDrop({Unused(5, 50), Parked(6, 10)}, host), 0u) << "it never fits the host";
  EXPECT_EQ(ChooseToDrop({Parked(6, 10)}, host), std::nullopt) << "nobody is to take its place";
}

TEST(TierPolicyTest, OthersDoNotLeaveTheHostForATenantAtItsLimit) {
  const HostTier host = {
      .limit_bytes = 40, .tenant_limit_bytes = 15, .bytes_of_tenant = {{"a", 10}, {"b", 10}}};
  EXPECT_EQ(ChooseToDrop({Unused(5, 10, "a"), Parked(7, 10, "b"), Parked(6, 10, "a")}, host), 2u);
  EXPECT_EQ(ChooseToDrop({Unused(5, 10, "a"), Parked(7, 10, "b")}, host), 0u);
  EXPECT_EQ(ChooseToDrop({Unused(5, 20, "a"), Parked(6, 10, "a")}, host), 0u);
  EXPECT_EQ(ChooseToDrop({Unused(5, 10, "c"), Parked(7, 10, "b")}, host), 1u);
}

DiskCandidate OnDisk(int64_t seconds, int64_t bytes, std::string tenant = "t") {
  return {.tenant = std::move(tenant),
          .last_used = absl::FromUnixSeconds(1000 - seconds),
          .bytes = bytes};
}

TEST(TierPolicyTest, TheLongestUnusedAreErasedUntilTheLimitsHold) {
  const std::vector<DiskCandidate> candidates = {OnDisk(1, 10, "a"), OnDisk(4, 10, "a"),
                                                 OnDisk(5, 0, "a"), OnDisk(3, 10, "b"),
                                                 OnDisk(2, 10, "b")};
  EXPECT_THAT(ChooseToErase(candidates, 0, 0), IsEmpty());
  EXPECT_THAT(ChooseToErase(candidates, 40, 20), IsEmpty());
  EXPECT_THAT(ChooseToErase(candidates, 39, 0), ElementsAre(1));
  EXPECT_THAT(ChooseToErase(candidates, 20, 0), ElementsAre(1, 3));
  EXPECT_THAT(ChooseToErase(candidates, 0, 10), ElementsAre(1, 3));
  EXPECT_THAT(ChooseToErase(candidates, 1, 0), ElementsAre(1, 3, 4, 0));
}

TEST(TierPolicyTest, WhatStaysOnTheDiskCountsAndIsNotChosenForIt) {
  std::vector<DiskCandidate> candidates = {OnDisk(3, 10), OnDisk(2, 10), OnDisk(1, 10)};
  candidates[0].kept_bytes = 10;
  candidates[1].kept_bytes = 4;
  EXPECT_THAT(ChooseToErase(candidates, 24, 0), ElementsAre(1));
  EXPECT_THAT(ChooseToErase(candidates, 23, 0), ElementsAre(1, 2));
  EXPECT_THAT(ChooseToErase(candidates, 1, 0), ElementsAre(1, 2)) << "and then no more";
}

}  // namespace
}  // namespace mneme
