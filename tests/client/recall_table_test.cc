#include "client/recall_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mneme {
namespace {

using ::testing::HasSubstr;

TEST(RecallTableTest, SortsOutcomesByDistance) {
  const std::vector<RecallBucket> buckets = MakeRecallBuckets(
      {{0, true, true}, {127, true, false}, {128, true, false}, {1023, false, true}});
  ASSERT_EQ(buckets.size(), 3u);
  EXPECT_EQ(buckets[0].begin_tokens, 0u);
  EXPECT_EQ(buckets[0].end_tokens, 128u);
  EXPECT_EQ(buckets[0].questions, 2u);
  EXPECT_EQ(buckets[0].learning_knew, 2u);
  EXPECT_EQ(buckets[0].frozen_knew, 1u);
  EXPECT_EQ(buckets[1].begin_tokens, 128u);
  EXPECT_EQ(buckets[1].end_tokens, 256u);
  EXPECT_EQ(buckets[2].begin_tokens, 512u);
  EXPECT_EQ(buckets[2].frozen_knew, 1u);
}

TEST(RecallTableTest, TheSumHasEveryQuestion) {
  const RecallBucket sum =
      SumRecall(MakeRecallBuckets({{5, true, false}, {500, true, true}, {5000, false, false}}));
  EXPECT_EQ(sum.questions, 3u);
  EXPECT_EQ(sum.learning_knew, 2u);
  EXPECT_EQ(sum.frozen_knew, 1u);
}

TEST(RecallTableTest, PrintsARowForEachRangeAndTheSum) {
  const std::string table = RecallTable(MakeRecallBuckets({{5, true, false}, {300, false, false}}));
  EXPECT_THAT(table, HasSubstr("0 - 127"));
  EXPECT_THAT(table, HasSubstr("256 - 511"));
  EXPECT_THAT(table, HasSubstr("all                     2      0.50      0.00"));
}

TEST(RecallTableTest, AShareOfNothingIsZero) { EXPECT_EQ(RecallShare(0, 0), 0); }

}  // namespace
}  // namespace mneme
