#include "kernels/cpu/row_loops.h"

#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/row_loops.cc"
#include "hwy/foreach_target.h"
// Highway asks for this order.
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mneme {
namespace HWY_NAMESPACE {
namespace {

float SumSquares(const float* in, int64_t count) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = LanesOf(d);
  auto sum0 = hn::Zero(d);
  auto sum1 = hn::Zero(d);
  int64_t i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    const auto x0 = hn::LoadU(d, in + i);
    const auto x1 = hn::LoadU(d, in + i + lanes);
    sum0 = hn::MulAdd(x0, x0, sum0);
    sum1 = hn::MulAdd(x1, x1, sum1);
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(sum0, sum1)));
  for (; i < count; ++i) sum += in[i] * in[i];
  return sum;
}

void RmsNorm(const float* in, const float* weight, float epsilon, int64_t count, float* out) {
  const float mean = SumSquares(in, count) / static_cast<float>(count);
  const float inverse = 1.0f / std::sqrt(mean + epsilon);
  ForEachVector(count, [=](auto d, int64_t i) HWY_ATTR {
    const auto scaled = hn::Mul(hn::LoadU(d, in + i), hn::Set(d, inverse));
    hn::StoreU(hn::Mul(scaled, hn::LoadU(d, weight + i)), d, out + i);
  });
}

void SwiGlu(const float* gate, const float* up, int64_t count, float* z) {
  ForEachVector(count, [=](auto d, int64_t i) HWY_ATTR {
    const auto g = hn::LoadU(d, gate + i);
    // e⁸⁸ is the largest power in float32; beyond it silu(g) is 0 to within 1e-35.
    const auto power = hn::Exp(d, hn::Min(hn::Neg(g), hn::Set(d, 88.0f)));
    const auto silu = hn::Div(g, hn::Add(power, hn::Set(d, 1.0f)));
    hn::StoreU(hn::Mul(silu, hn::LoadU(d, up + i)), d, z + i);
  });
}

void Place(const float* in, int64_t count, bool add, float* out) {
  ForEachVector(count, [=](auto d, int64_t i) HWY_ATTR {
    const auto x = hn::LoadU(d, in + i);
    hn::StoreU(add ? hn::Add(x, hn::LoadU(d, out + i)) : x, d, out + i);
  });
}

void ToBFloat16(const float* in, int64_t count, uint16_t* out) {
  ForEachVector(count, [=](auto d, int64_t i) HWY_ATTR {
    const hn::RebindToUnsigned<decltype(d)> du;
    const hn::RebindToSigned<decltype(d)> di;
    const hn::Rebind<uint16_t, decltype(d)> du16;
    const auto x = hn::LoadU(d, in + i);
    const auto bits = hn::BitCast(du, x);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
    const auto rounded = hn::ShiftRight<16>(hn::Add(hn::Add(bits, hn::Set(du, 0x7fff)), odd));
    const auto quiet = hn::Or(hn::ShiftRight<16>(bits), hn::Set(du, 0x40));
    const auto is_nan = hn::RebindMask(du, hn::IsNaN(x));
    const auto result = hn::IfThenElse(is_nan, quiet, rounded);
    hn::StoreU(hn::DemoteTo(du16, hn::BitCast(di, result)), du16, out + i);
  });
}

float MaxOf(const float* in, int64_t count) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = LanesOf(d);
  auto max = hn::Set(d, in[0]);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) max = hn::Max(max, hn::LoadU(d, in + i));
  float result = hn::GetLane(hn::MaxOfLanes(d, max));
  for (; i < count; ++i) result = std::max(result, in[i]);
  return result;
}

// Σ exp(in[i] − max); count is small enough for float32 sums.
float SumExp(const float* in, int64_t count, float max) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = LanesOf(d);
  auto sums = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    sums = hn::Add(sums, hn::Exp(d, hn::Sub(hn::LoadU(d, in + i), hn::Set(d, max))));
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, sums));
  for (; i < count; ++i) sum += std::exp(in[i] - max);
  return sum;
}

double LogSumExp(const float* in, int64_t count) {
  constexpr int64_t kBlock = 4096;
  const float max = MaxOf(in, count);
  double sum = 0;
  for (int64_t i = 0; i < count; i += kBlock) {
    sum += static_cast<double>(SumExp(in + i, std::min(kBlock, count - i), max));
  }
  return static_cast<double>(max) + std::log(sum);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace mneme
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mneme {

HWY_EXPORT(RmsNorm);
HWY_EXPORT(SwiGlu);
HWY_EXPORT(Place);
HWY_EXPORT(ToBFloat16);
HWY_EXPORT(LogSumExp);

void RmsNormRow(const float* in, const float* weight, float epsilon, int64_t count, float* out) {
  HWY_DYNAMIC_DISPATCH(RmsNorm)(in, weight, epsilon, count, out);
}

void SwiGluRow(const float* gate, const float* up, int64_t count, float* z) {
  HWY_DYNAMIC_DISPATCH(SwiGlu)(gate, up, count, z);
}

void PlaceRow(const float* in, int64_t count, bool add, float* out) {
  HWY_DYNAMIC_DISPATCH(Place)(in, count, add, out);
}

void ConvertRowToBFloat16(const float* in, int64_t count, uint16_t* out) {
  HWY_DYNAMIC_DISPATCH(ToBFloat16)(in, count, out);
}

double LogSumExpRow(const float* in, int64_t count) {
  return HWY_DYNAMIC_DISPATCH(LogSumExp)(in, count);
}

}  // namespace mneme
#endif  // HWY_ONCE
