#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "kernels/sampling.h"

namespace mneme {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

TEST(RandomTest, PhiloxGivesTheKnownAnswersOfRandom123) {
  EXPECT_THAT(Philox4x32({0, 0, 0, 0}, {0, 0}),
              ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  const uint32_t ones = 0xffffffff;
  EXPECT_THAT(Philox4x32({ones, ones, ones, ones}, {ones, ones}),
              ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  EXPECT_THAT(
      Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
      ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

TEST(RandomTest, UniformAtUsesEveryBitOfSeedAndPosition) {
  std::set<double> values;
  for (int bit = 0; bit < 64; ++bit) {
    values.insert(UniformAt(uint64_t{1} << bit, 0));
    values.insert(UniformAt(0, uint64_t{1} << bit));
  }
  values.insert(UniformAt(0, 0));
  EXPECT_THAT(values, SizeIs(129));
  EXPECT_GE(*values.begin(), 0);
  EXPECT_LT(*values.rbegin(), 1);
}

TEST(RandomTest, UniformAtHasTheMomentsOfAUniformNumberOverPositionsAndOverSeeds) {
  constexpr int kCount = 100000;
  double by_position = 0, by_seed = 0, products = 0;
  for (uint64_t i = 0; i < kCount; ++i) {
    by_position += UniformAt(1, i);
    by_seed += UniformAt(i, 1);
    products += UniformAt(1, i) * UniformAt(1, i + 1);
  }
  // Five standard deviations; 0.3005 is that of the products of neighbours, which share a factor.
  const double root = std::sqrt(kCount);
  EXPECT_NEAR(by_position / kCount, 0.5, 5 * 0.2887 / root);
  EXPECT_NEAR(by_seed / kCount, 0.5, 5 * 0.2887 / root);
  EXPECT_NEAR(products / kCount, 0.25, 5 * 0.3005 / root);
}

}  // namespace
}  // namespace mneme
