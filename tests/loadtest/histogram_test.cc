#include "loadtest/histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

namespace mneme {
namespace {

TEST(HistogramTest, IsExactBelowTwoMilliseconds) {
  Histogram histogram;
  for (int64_t value = 1000; value >= 1; --value) histogram.Add(value);
  EXPECT_EQ(histogram.count(), 1000);
  EXPECT_EQ(histogram.PercentileUs(0.5), 500);
  EXPECT_EQ(histogram.PercentileUs(0.9), 900);
  EXPECT_EQ(histogram.PercentileUs(0.99), 990);
  EXPECT_EQ(histogram.PercentileUs(0), 1);
  EXPECT_EQ(histogram.PercentileUs(1), 1000);
  EXPECT_EQ(histogram.max_us(), 1000);
  EXPECT_DOUBLE_EQ(histogram.mean_us(), 500.5);
}

TEST(HistogramTest, OfOneSampleEveryPercentileIsThatSample) {
  for (const int64_t value : {0LL, 2047LL, 2048LL, 123'456'789LL, 1LL << 50}) {
    Histogram histogram;
    histogram.Add(value);
    EXPECT_EQ(histogram.PercentileUs(0.5), value);
    EXPECT_EQ(histogram.PercentileUs(0.99), value);
    EXPECT_EQ(histogram.max_us(), value);
  }
}

TEST(HistogramTest, IsWithinATenthOfAPercentOfNearestRank) {
  Histogram histogram;
  std::vector<int64_t> values;
  std::mt19937_64 bits(3);
  for (int i = 0; i < 20'000; ++i) {
    values.push_back(static_cast<int64_t>(bits() >> (24 + bits() % 36)));
    histogram.Add(values.back());
  }
  std::sort(values.begin(), values.end());
  for (const double fraction : {0.01, 0.25, 0.5, 0.9, 0.99, 0.999}) {
    const auto rank = static_cast<size_t>(std::ceil(fraction * 20'000));
    const auto exact = static_cast<double>(values[rank - 1]);
    const auto found = static_cast<double>(histogram.PercentileUs(fraction));
    EXPECT_GE(found, exact);
    EXPECT_LE(found, exact * 1.001) << fraction;
  }
  EXPECT_EQ(histogram.PercentileUs(1), values.back());
}

TEST(HistogramTest, IsZeroWhenEmptyAndTakesNegativeDurationsAsZero) {
  Histogram histogram;
  EXPECT_EQ(histogram.PercentileUs(0.5), 0);
  EXPECT_EQ(histogram.max_us(), 0);
  EXPECT_EQ(histogram.mean_us(), 0);
  histogram.Add(-5);
  EXPECT_EQ(histogram.count(), 1);
  EXPECT_EQ(histogram.PercentileUs(1), 0);
}

}  // namespace
}  // namespace mneme
