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

}  // namespace
}  // namespace mneme
