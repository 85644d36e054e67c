#ifndef MNEME_KERNELS_CPU_FAST_WEIGHT_LOOPS_H_
#define MNEME_KERNELS_CPU_FAST_WEIGHT_LOOPS_H_

// Vectorised loops over the rows of fast weights.

#include <array>
#include <cstdint>

namespace mneme {

inline constexpr int64_t kConvTaps = 5;
inline constexpr int64_t kGemvRows = 4;

// out = Σ_j taps[j] ⊙ rows[j]: all [count]; a null row counts as zero.
void ConvRow(const std::array<const float*, kConvTaps>& rows, const float* taps, int64_t count,
             float* out);

// Σ u², in double precision.
double SumSquaresRow(const float* u, int64_t count);

// candidate = keep · delta + scale · u; a null delta counts as zero. Returns Σ candidate² in double
// precision and writes the candidate to `out` unless that is null. `out` may be `delta`.
double CombineRow(const float* delta, float keep, const float* u, float scale, int64_t count,
                  float* out);

// y[r · y_stride + i] += weights[i] · z[r] for `row_count` ≤ kGemvRows rows z [row_count, in]
// and `out_count` rows of weights [out_count, in].
void GemvAdd(const float* weights, int64_t out_count, int64_t in, const float* z, int64_t z_stride,
             int64_t row_count, float* y, int64_t y_stride);

}  // namespace mneme

#endif  // MNEME_KERNELS_CPU_FAST_WEIGHT_LOOPS_H_
