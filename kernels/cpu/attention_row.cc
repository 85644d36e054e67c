#include "kernels/cpu/attention_row.h"

#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_row.cc"
#include "hwy/foreach_target.h"
// Highway asks for this order.
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mneme {
namespace HWY_NAMESPACE {
namespace {

using Floats = hn::CappedTag<float, 16>;
using Vector = hn::Vec<Floats>;

constexpr float kNothing = -1e30f;

// scores[q][j] = scale · queries[q] · keys[j], for kQueries queries from `first` on.
template <int kQueries>
HWY_INLINE void Scores(const RowAttention& row, int64_t first, const float* keys, int64_t stride,
                       int64_t count, float (*scores)[kMaxRunKeys]) {
  const Floats d;
  const int64_t lanes = LanesOf(d);
  for (int64_t j = 0; j < count; ++j) {
    const float* key = keys + j * stride;
    Vector sum[kQueries];
    for (int q = 0; q < kQueries; ++q) sum[q] = hn::Zero(d);
    for (int64_t i = 0; i < row.head_dim; i += lanes) {
      const Vector element = hn::LoadU(d, key + i);
      for (int q = 0; q < kQueries; ++q) {
        const float* query = row.queries[static_cast<size_t>(first + q)];
        sum[q] = hn::MulAdd(element, hn::LoadU(d, query + i), sum[q]);
      }
    }
    for (int q = 0; q < kQueries; ++q) {
      scores[q][j] = hn::GetLane(hn::SumOfLanes(d, sum[q])) * row.scale;
    }
  }
}

// Scores, padded to whole vectors, to softmax weights relative to the new maximum. Returns what the
// sums so far must be multiplied by.
float Softmax(int64_t count, float* scores, float& max, float& sum) {
  const Floats d;
  const int64_t lanes = LanesOf(d);
  const int64_t padded = (count + lanes - 1) / lanes * lanes;
  std::fill(scores + count, scores + padded, kNothing);
  Vector largest = hn::Set(d, max);
  for (int64_t j = 0; j < padded; j += lanes) largest = hn::Max(largest, hn::Load(d, scores + j));
  largest = hn::MaxOfLanes(d, largest);
  Vector total = hn::Zero(d);
  for (int64_t j = 0; j < padded; j += lanes) {
    const Vector weight = hn::Exp(d, hn::Sub(hn::Load(d, scores + j), largest));
    hn::Store(weight, d, scores + j);
    total = hn::Add(total, weight);
  }
  const float new_max = hn::GetLane(largest);
  const float correction = std::exp(max - new_max);
  max = new_max;
  sum = sum * correction + hn::GetLane(hn::SumOfLanes(d, total));
  return correction;
}

// out[q] = corrections[q] · out[q] + Σ_j weights[q][j] values[j], in kVectors vectors from `i` on.
template <int kQueries, int kVectors>
HWY_INLINE void AddValues(const float (*weights)[kMaxRunKeys], const float* corrections,
                          const float* values, int64_t stride, int64_t count, int64_t head_dim,
                          float* out) {
  const Floats d;
  const int64_t lanes = LanesOf(d);
  Vector sum[kQueries][kVectors];
  for (int q = 0; q < kQueries; ++q) {
    for (int v = 0; v < kVectors; ++v) {
      sum[q][v] = hn::Mul(hn::LoadU(d, out + q * head_dim + v * lanes), hn::Set(d, corrections[q]));
    }
  }
  for (int64_t j = 0; j < count; ++j) {
    Vector value[kVectors];
    for (int v = 0; v < kVectors; ++v) value[v] = hn::LoadU(d, values + j * stride + v * lanes);
    for (int q = 0; q < kQueries; ++q) {
      const Vector weight = hn::Set(d, weights[q][j]);
      for (int v = 0; v < kVectors; ++v) sum[q][v] = hn::MulAdd(weight, value[v], sum[q][v]);
    }
  }
  for (int q = 0; q < kQueries; ++q) {
    for (int v = 0; v < kVectors; ++v) hn::StoreU(sum[q][v], d, out + q * head_dim + v * lanes);
  }
}

template <int kQueries>
void AttendQueries(const float* keys, const float* values, int64_t stride, int64_t count,
                   int64_t first, RowAttention& row) {
  constexpr int kVectors = 4;
  const int64_t lanes = LanesOf(Floats());
  HWY_ALIGN float scores[kQueries][kMaxRunKeys];
  float corrections[kQueries];
  Scores<kQueries>(row, first, keys, stride, count, scores);
  for (int q = 0; q < kQueries; ++q) {
    const size_t query = static_cast<size_t>(first + q);
    corrections[q] = Softmax(count, scores[q], row.max[query], row.sum[query]);
  }
  float* out = row.out + first * row.head_dim;
  int64_t i = 0;
  for (; i + kVectors * lanes <= row.head_dim; i += kVectors * lanes) {
    AddValues<kQueries, kVectors>(scores, corrections, values + i, stride, count, row.head_dim,
                                  out + i);
  }
  for (; i < row.head_dim; i += lanes) {
    AddValues<kQueries, 1>(scores, corrections, values + i, stride, count, row.head_dim, out + i);
  }
}

void Attend(const float* keys, const float* values, int64_t stride, int64_t count,
            RowAttention& row) {
  int64_t first = 0;
  for (; first + 4 <= row.query_count; first += 4) {
    AttendQueries<4>(keys, values, stride, count, first, row);
  }
  for (; first + 2 <= row.query_count; first += 2) {
    AttendQueries<2>(keys, values, stride, count, first, row);
  }
  if (first < row.query_count) AttendQueries<1>(keys, values, stride, count, first, row);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace mneme
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mneme {

HWY_EXPORT(Attend);

void StartRow(RowAttention& row) {
  constexpr float kLowest = -1e30f;  // finite, so that a difference of two is not NaN
  row.max.fill(kLowest);
  row.sum.fill(0);
  std::fill_n(row.out, row.query_count * row.head_dim, 0.0f);
}

void AttendRun(const float* keys, const float* values, int64_t stride, int64_t count,
               RowAttention& row) {
  HWY_DYNAMIC_DISPATCH(Attend)(keys, values, stride, count, row);
}

}  // namespace mneme
#endif  // HWY_ONCE
