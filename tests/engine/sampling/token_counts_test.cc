#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "engine/sampling/sampler.h"

namespace mneme {
namespace {

using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

std::vector<std::pair<int32_t, int32_t>> Pairs(const TokenCounts& counts) {
  std::vector<std::pair<int32_t, int32_t>> pairs;
  for (const TokenCount& entry : counts.counts()) pairs.push_back({entry.id, entry.count});
  return pairs;
}

TEST(TokenCountsTest, HoldsEachIdOnceWithHowOftenItCame) {
  TokenCounts counts;
  EXPECT_THAT(counts.counts(), IsEmpty());
  constexpr int32_t kLast = std::numeric_limits<int32_t>::max();
  for (const int32_t id : {7, 0, 7, kLast, 7, 0}) counts.Add(id);
  EXPECT_THAT(Pairs(counts), UnorderedElementsAre(Pair(0, 2), Pair(7, 3), Pair(kLast, 1)));
}

TEST(TokenCountsTest, StaysRightWhileItGrows) {
  TokenCounts counts;
  for (int32_t i = 0; i < 3000; ++i) counts.Add(i % 1000);
  ASSERT_EQ(counts.counts().size(), 1000u);
  for (const TokenCount& entry : counts.counts()) EXPECT_EQ(entry.count, 3);
}

}  // namespace
}  // namespace mneme
