#include "base/dtype.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

namespace mneme {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(DTypeTest, SizesAndNamesAreThoseOfSafetensors) {
  EXPECT_EQ(SizeOf(DType::kF32), 4);
  EXPECT_EQ(SizeOf(DType::kF16), 2);
  EXPECT_EQ(SizeOf(DType::kBF16), 2);
  EXPECT_STREQ(NameOf(DType::kF32), "F32");
  EXPECT_STREQ(NameOf(DType::kF16), "F16");
  EXPECT_STREQ(NameOf(DType::kBF16), "BF16");
}

TEST(DTypeTest, BFloat16IsTheUpperHalfOfFloat) {
  EXPECT_EQ(BFloat16ToFloat(0x3f80), 1.0f);
  EXPECT_EQ(BFloat16ToFloat(0xc049), -3.140625f);
  EXPECT_EQ(BFloat16ToFloat(0x0001), std::ldexp(1.0f, -133));
  EXPECT_EQ(BFloat16ToFloat(0xff80), -kInfinity);
  EXPECT_TRUE(std::isnan(BFloat16ToFloat(0x7fc0)));
}

TEST(DTypeTest, FloatRoundsToTheNearestBFloat16AndTiesToEven) {
  EXPECT_EQ(FloatToBFloat16(1.0f), 0x3f80);
  EXPECT_EQ(FloatToBFloat16(1.0f + std::ldexp(1.0f, -8)), 0x3f80);      // tie, down to even
  EXPECT_EQ(FloatToBFloat16(1.0f + 3 * std::ldexp(1.0f, -8)), 0x3f82);  // tie, up to even
  EXPECT_EQ(FloatToBFloat16(1.0f + std::ldexp(1.0f, -8) + std::ldexp(1.0f, -20)), 0x3f81);
  EXPECT_EQ(FloatToBFloat16(-0.0f), 0x8000);
  EXPECT_EQ(FloatToBFloat16(std::numeric_limits<float>::max()), 0x7f80);  // rounds to infinity
  EXPECT_EQ(FloatToBFloat16(kInfinity), 0x7f80);
}

TEST(DTypeTest, NaNStaysNaNAsBFloat16) {
  // A payload in the lower half alone must not become an infinity.
  const float nan = std::bit_cast<float>(uint32_t{0x7f800001});
  EXPECT_TRUE(std::isnan(BFloat16ToFloat(FloatToBFloat16(nan))));
  EXPECT_TRUE(std::isnan(BFloat16ToFloat(FloatToBFloat16(-nan))));
}

TEST(DTypeTest, EveryBFloat16SurvivesTheWayThroughFloat) {
  for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const float value = BFloat16ToFloat(static_cast<uint16_t>(bits));
    if (std::isnan(value)) continue;
    EXPECT_EQ(FloatToBFloat16(value), bits);
  }
}

TEST(DTypeTest, Float16ConvertsExactly) {
  EXPECT_EQ(Float16ToFloat(0x3c00), 1.0f);
  EXPECT_EQ(Float16ToFloat(0xc000), -2.0f);
  EXPECT_EQ(Float16ToFloat(0x7bff), 65504.0f);
  EXPECT_EQ(Float16ToFloat(0x0400), std::ldexp(1.0f, -14));  // smallest normal
  EXPECT_EQ(Float16ToFloat(0x0001), std::ldexp(1.0f, -24));  // smallest subnormal
  EXPECT_EQ(Float16ToFloat(0x83ff), -1023 * std::ldexp(1.0f, -24));
  EXPECT_EQ(Float16ToFloat(0x7c00), kInfinity);
  EXPECT_EQ(Float16ToFloat(0xfc00), -kInfinity);
  EXPECT_TRUE(std::isnan(Float16ToFloat(0x7e00)));
  EXPECT_TRUE(std::signbit(Float16ToFloat(0x8000)));
}

TEST(DTypeTest, ConvertsArraysOfAnyAlignment) {
  const std::vector<uint8_t> bytes = {0xff, 0x80, 0x3f, 0x00, 0x40};
  std::vector<float> out(2);
  ConvertToFloat(bytes.data() + 1, DType::kBF16, 2, out.data());
  EXPECT_EQ(out, (std::vector<float>{1.0f, 2.0f}));
  ConvertToFloat(bytes.data() + 1, DType::kF16, 2, out.data());
  EXPECT_EQ(out, (std::vector<float>{1.875f, 2.0f}));
}

}  // namespace
}  // namespace mneme
