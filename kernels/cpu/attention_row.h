#ifndef MNEME_KERNELS_CPU_ATTENTION_ROW_H_
#define MNEME_KERNELS_CPU_ATTENTION_ROW_H_

// Attention of a single row: a few query vectors meet keys that all of them see. Reading the cache
// is what costs, so keys and values are taken where they lie, with SIMD lanes along the head.

#include <array>
#include <cstdint>

namespace mneme {

inline constexpr int64_t kMaxRowQueries = 8;
inline constexpr int64_t kMaxRunKeys = 64;

// The query vectors and the running state of their softmax.
struct RowAttention {
  int64_t head_dim = 0;     // a multiple of 16
  int64_t query_count = 0;  // at most kMaxRowQueries
  float scale = 1;
  std::array<const float*, kMaxRowQueries> queries{};  // [head_dim] each
  float* out = nullptr;                                // [query_count, head_dim], times `sum`
  std::array<float, kMaxRowQueries> max{};
  std::array<float, kMaxRowQueries> sum{};
};

// Whether such rows can be served.
inline bool ServesRow(int64_t query_count, int64_t head_dim) {
  return query_count <= kMaxRowQueries && head_dim % 16 == 0;
}

// Empties the state.
void StartRow(RowAttention& row);

// Adds `count` ≤ kMaxRunKeys keys and values, `stride` floats apart.
void AttendRun(const float* keys, const float* values, int64_t stride, int64_t count,
               RowAttention& row);

}  // namespace mneme

#endif  // MNEME_KERNELS_CPU_ATTENTION_ROW_H_
