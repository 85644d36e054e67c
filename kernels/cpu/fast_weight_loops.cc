#include "kernels/cpu/fast_weight_loops.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/fast_weight_loops.cc"
#include "hwy/foreach_target.h"
// Highway asks for this order.
#include "hwy/highway.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mneme {
namespace HWY_NAMESPACE {
namespace {

// float32 vectors as long as the vectors of double precision that hold their squares.
using Wide = hn::ScalableTag<double>;
using Narrow = hn::Rebind<float, Wide>;

HWY_INLINE hn::Vec<Wide> AddSquare(hn::Vec<Narrow> x, hn::Vec<Wide> sum) {
  const auto wide = hn::PromoteTo(Wide(), x);
  return hn::MulAdd(wide, wide, sum);
}

HWY_INLINE double Total(hn::Vec<Wide> sum) { return hn::GetLane(hn::SumOfLanes(Wide(), sum)); }

double Square(float x) { return static_cast<double>(x) * static_cast<double>(x); }

double SumSquares(const float* u, int64_t count) {
  const Narrow d;
  const int64_t lanes = LanesOf(d);
  auto sum0 = hn::Zero(Wide());
  auto sum1 = hn::Zero(Wide());
  int64_t i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    sum0 = AddSquare(hn::LoadU(d, u + i), sum0);
    sum1 = AddSquare(hn::LoadU(d, u + i + lanes), sum1);
  }
  double total = Total(hn::Add(sum0, sum1));
  for (; i < count; ++i) total += Square(u[i]);
  return total;
}

template <bool kDelta, bool kStore>
double Combine(const float* delta, float keep, const float* u, float scale, int64_t count,
               float* out) {
  const Narrow d;
  const int64_t lanes = LanesOf(d);
  const auto candidate = [=](auto tag, int64_t i) HWY_ATTR {
    const auto step = hn::Mul(hn::LoadU(tag, u + i), hn::Set(tag, scale));
    if constexpr (kDelta) {
      return hn::MulAdd(hn::LoadU(tag, delta + i), hn::Set(tag, keep), step);
    } else {
      return step;
    }
  };
  auto sum0 = hn::Zero(Wide());
  auto sum1 = hn::Zero(Wide());
  int64_t i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    const auto x0 = candidate(d, i);
    const auto x1 = candidate(d, i + lanes);
    if constexpr (kStore) hn::StoreU(x0, d, out + i);
    if constexpr (kStore) hn::StoreU(x1, d, out + i + lanes);
    sum0 = AddSquare(x0, sum0);
    sum1 = AddSquare(x1, sum1);
  }
  double total = Total(hn::Add(sum0, sum1));
  for (; i < count; ++i) {
    const float x = hn::GetLane(candidate(hn::CappedTag<float, 1>(), i));
    if constexpr (kStore) out[i] = x;
    total += Square(x);
  }
  return total;
}

double CombineAny(const float* delta, float keep, const float* u, float scale, int64_t count,
                  float* out) {
  if (delta == nullptr) {
    return out == nullptr ? Combine<false, false>(delta, keep, u, scale, count, out)
                          : Combine<false, true>(delta, keep, u, scale, count, out);
  }
  return out == nullptr ? Combine<true, false>(delta, keep, u, scale, count, out)
                        : Combine<true, true>(delta, keep, u, scale, count, out);
}

void Conv(const std::array<const float*, kConvTaps>& rows, const float* taps, int64_t count,
          float* out) {
  ForEachVector(count, [&](auto d, int64_t i) HWY_ATTR {
    auto sum = hn::Zero(d);
    for (int64_t j = 0; j < kConvTaps; ++j) {
      const float* row = rows[static_cast<size_t>(j)];
      if (row == nullptr) continue;
      sum = hn::MulAdd(hn::LoadU(d, taps + j * count + i), hn::LoadU(d, row + i), sum);
    }
    hn::StoreU(sum, d, out + i);
  });
}

// kOut rows of weights meet kRows rows of z, each read once.
template <int kOut, int kRows>
HWY_INLINE void GemvTile(const float* weights, int64_t in, const float* z, int64_t z_stride,
                         float* y, int64_t y_stride) {
  const hn::CappedTag<float, 16> d;
  const int64_t lanes = LanesOf(d);
  hn::Vec<decltype(d)> sum[kOut][kRows];
  for (int o = 0; o < kOut; ++o) {
    for (int r = 0; r < kRows; ++r) sum[o][r] = hn::Zero(d);
  }
  int64_t i = 0;
  for (; i + lanes <= in; i += lanes) {
    for (int o = 0; o < kOut; ++o) {
      const auto weight = hn::LoadU(d, weights + o * in + i);
      for (int r = 0; r < kRows; ++r) {
        sum[o][r] = hn::MulAdd(weight, hn::LoadU(d, z + r * z_stride + i), sum[o][r]);
      }
    }
  }
  for (int o = 0; o < kOut; ++o) {
    for (int r = 0; r < kRows; ++r) {
      float total = hn::GetLane(hn::SumOfLanes(d, sum[o][r]));
      for (int64_t j = i; j < in; ++j) total += weights[o * in + j] * z[r * z_stride + j];
      y[r * y_stride + o] += total;
    }
  }
}

template <int kRows>
void GemvRows(const float* weights, int64_t out_count, int64_t in, const float* z, int64_t z_stride,
              float* y, int64_t y_stride) {
  constexpr int kOut = kRows == 1 ? 8 : 4;
  int64_t o = 0;
  for (; o + kOut <= out_count; o += kOut) {
    GemvTile<kOut, kRows>(weights + o * in, in, z, z_stride, y + o, y_stride);
  }
  for (; o < out_count; ++o) {
    GemvTile<1, kRows>(weights + o * in, in, z, z_stride, y + o, y_stride);
  }
}

void Gemv(const float* weights, int64_t out_count, int64_t in, const float* z, int64_t z_stride,
          int64_t row_count, float* y, int64_t y_stride) {
  switch (row_count) {
    case 1:
      return GemvRows<1>(weights, out_count, in, z, z_stride, y, y_stride);
    case 2:
      return GemvRows<2>(weights, out_count, in, z, z_stride, y, y_stride);
    case 3:
      return GemvRows<3>(weights, out_count, in, z, z_stride, y, y_stride);
    default:
      return GemvRows<4>(weights, out_count, in, z, z_stride, y, y_stride);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace mneme
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mneme {

HWY_EXPORT(Conv);
HWY_EXPORT(SumSquares);
HWY_EXPORT(CombineAny);
HWY_EXPORT(Gemv);

void ConvRow(const std::array<const float*, kConvTaps>& rows, const float* taps, int64_t count,
             float* out) {
  HWY_DYNAMIC_DISPATCH(Conv)(rows, taps, count, out);
}

double SumSquaresRow(const float* u, int64_t count) {
  return HWY_DYNAMIC_DISPATCH(SumSquares)(u, count);
}

double CombineRow(const float* delta, float keep, const float* u, float scale, int64_t count,
                  float* out) {
  return HWY_DYNAMIC_DISPATCH(CombineAny)(delta, keep, u, scale, count, out);
}

void GemvAdd(const float* weights, int64_t out_count, int64_t in, const float* z, int64_t z_stride,
             int64_t row_count, float* y, int64_t y_stride) {
  HWY_DYNAMIC_DISPATCH(Gemv)(weights, out_count, in, z, z_stride, row_count, y, y_stride);
}

}  // namespace mneme
#endif  // HWY_ONCE
