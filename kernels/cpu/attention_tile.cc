#include "kernels/cpu/attention_tile.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_tile.cc"
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

constexpr int64_t kStride = kMaxBlockQueries;
// The score of a masked key. Finite, so that a row whose tile is masked altogether stays free of
// NaN; what such a tile adds is erased by the correction when the first real key comes.
constexpr float kMasked = -1e30f;
// Tiles of kRows x kVectors products fill half of the vector registers.
#if HWY_TARGET == HWY_AVX3
constexpr int kRows = 4, kVectors = 4;
#else
constexpr int kRows = 4, kVectors = 2;
#endif

int64_t PaddedQueries(const AttentionBlock& block) {
  const int64_t lanes = LanesOf(Floats());
  return (block.query_count + lanes - 1) / lanes * lanes;
}

// scores[r][·] = keys[r] · queries[·][·] for kR keys and kV vectors of queries.
template <int kR, int kV>
HWY_INLINE void ScoreProducts(const float* HWY_RESTRICT keys, const float* HWY_RESTRICT queries,
                              int64_t head_dim, float* HWY_RESTRICT scores) {
  const Floats d;
  const int64_t lanes = LanesOf(d);
  Vector sum[kR][kV];
  for (int r = 0; r < kR; ++r) {
    for (int v = 0; v < kV; ++v) sum[r][v] = hn::Zero(d);
  }
  for (int64_t i = 0; i < head_dim; ++i) {
    Vector query[kV];
    for (int v = 0; v < kV; ++v) query[v] = hn::Load(d, queries + i * kStride + v * lanes);
    for (int r = 0; r < kR; ++r) {
      const Vector key = hn::Set(d, keys[r * head_dim + i]);
      for (int v = 0; v < kV; ++v) sum[r][v] = hn::MulAdd(key, query[v], sum[r][v]);
    }
  }
  for (int r = 0; r < kR; ++r) {
    for (int v = 0; v < kV; ++v) hn::Store(sum[r][v], d, scores + r * kStride + v * lanes);
  }
}

// out[r][·] = correction ⊙ out[r][·] + Σ_key values[key][r] weights[key][·].
template <int kR, int kV>
HWY_INLINE void ValueProducts(int64_t key_count, const float* HWY_RESTRICT values, int64_t head_dim,
                              const float* HWY_RESTRICT weights,
                              const float* HWY_RESTRICT correction, float* HWY_RESTRICT out) {
  const Floats d;
  const int64_t lanes = LanesOf(d);
  Vector sum[kR][kV];
  for (int r = 0; r < kR; ++r) {
    for (int v = 0; v < kV; ++v) {
      sum[r][v] =
          hn::Mul(hn::Load(d, out + r * kStride + v * lanes), hn::Load(d, correction + v * lanes));
    }
  }
  for (int64_t key = 0; key < key_count; ++key) {
    Vector weight[kV];
    for (int v = 0; v < kV; ++v) weight[v] = hn::Load(d, weights + key * kStride + v * lanes);
    for (int r = 0; r < kR; ++r) {
      const Vector element = hn::Set(d, values[key * head_dim + r]);
      for (int v = 0; v < kV; ++v) sum[r][v] = hn::MulAdd(element, weight[v], sum[r][v]);
    }
  }
  for (int r = 0; r < kR; ++r) {
    for (int v = 0; v < kV; ++v) hn::Store(sum[r][v], d, out + r * kStride + v * lanes);
  }
}

template <int kR, int kV>
void ScoreColumns(const KeyValueTile& tile, int64_t column, AttentionBlock& block) {
  for (int64_t key = 0; key < tile.count; key += kR) {
    ScoreProducts<kR, kV>(block.keys + key * block.head_dim, block.queries + column, block.head_dim,
                          block.scores + key * kStride + column);
  }
}

template <int kR, int kV>
void ValueColumns(const KeyValueTile& tile, int64_t column, AttentionBlock& block) {
  const float* weights = block.scores + column;
  const float* correction = block.correction + column;
  int64_t i = 0;
  for (; i + kR <= block.head_dim; i += kR) {
    ValueProducts<kR, kV>(tile.count, block.values + i, block.head_dim, weights, correction,
                          block.out + i * kStride + column);
  }
  for (; i < block.head_dim; ++i) {
    ValueProducts<1, kV>(tile.count, block.values + i, block.head_dim, weights, correction,
                         block.out + i * kStride + column);
  }
}

// Sets the scores of the keys that a query does not see.
void MaskColumn(const KeyValueTile& tile, int64_t column, AttentionBlock& block) {
  const Floats d;
  const hn::RebindToSigned<Floats> di;
  const auto last = hn::Load(di, block.last_key + column);
  const auto before_first = hn::Sub(last, hn::Set(di, block.window));
  for (int64_t i = 0; i < tile.count; ++i) {
    const auto key = hn::Set(di, tile.first_key + static_cast<int32_t>(i));
    const auto seen = hn::AndNot(hn::VecFromMask(di, hn::Gt(key, last)),
                                 hn::VecFromMask(di, hn::Gt(key, before_first)));
    const auto mask = hn::RebindMask(d, hn::MaskFromVec(seen));
    float* score = block.scores + i * kStride + column;
    hn::Store(hn::IfThenElse(mask, hn::Load(d, score), hn::Set(d, kMasked)), d, score);
  }
}

// Scores to softmax weights, relative to the new maximum, in one column of vectors.
void SoftmaxColumn(int64_t keys, int64_t column, AttentionBlock& block) {
  const Floats d;
  float* scores = block.scores + column;
  const Vector old_max = hn::Load(d, block.max + column);
  Vector max = old_max;
  for (int64_t i = 0; i < keys; ++i) max = hn::Max(max, hn::Load(d, scores + i * kStride));
  const Vector correction = hn::Exp(d, hn::Sub(old_max, max));
  Vector sum = hn::Mul(hn::Load(d, block.sum + column), correction);
  for (int64_t i = 0; i < keys; ++i) {
    const Vector weight = hn::Exp(d, hn::Sub(hn::Load(d, scores + i * kStride), max));
    hn::Store(weight, d, scores + i * kStride);
    sum = hn::Add(sum, weight);
  }
  hn::Store(max, d, block.max + column);
  hn::Store(sum, d, block.sum + column);
  hn::Store(correction, d, block.correction + column);
}

void Attend(const KeyValueTile& tile, AttentionBlock& block) {
  const int64_t lanes = LanesOf(Floats());
  const int64_t padded = PaddedQueries(block);
  int64_t column = 0;
  for (; column + kVectors * lanes <= padded; column += kVectors * lanes) {
    ScoreColumns<kRows, kVectors>(tile, column, block);
  }
  for (; column < padded; column += lanes) ScoreColumns<2 * kRows, 1>(tile, column, block);
  for (column = 0; column < padded; column += lanes) {
    if (tile.masked) MaskColumn(tile, column, block);
    SoftmaxColumn(tile.count, column, block);
  }
  for (column = 0; column + kVectors * lanes <= padded; column += kVectors * lanes) {
    ValueColumns<kRows, kVectors>(tile, column, block);
  }
  for (; column < padded; column += lanes) ValueColumns<2 * kRows, 1>(tile, column, block);
}

void Merge(const AttentionBlock& other, AttentionBlock& block) {
  const Floats d;
  const int64_t lanes = LanesOf(d);
  for (int64_t column = 0; column < PaddedQueries(block); column += lanes) {
    const Vector max_a = hn::Load(d, block.max + column);
    const Vector max_b = hn::Load(d, other.max + column);
    const Vector max = hn::Max(max_a, max_b);
    const Vector scale_a = hn::Exp(d, hn::Sub(max_a, max));
    const Vector scale_b = hn::Exp(d, hn::Sub(max_b, max));
    const auto blend = [&](const float* b, float* a) HWY_ATTR {
      const Vector sum = hn::Mul(hn::Load(d, a + column), scale_a);
      hn::Store(hn::MulAdd(hn::Load(d, b + column), scale_b, sum), d, a + column);
    };
    blend(other.sum, block.sum);
    for (int64_t i = 0; i < block.head_dim; ++i) {
      blend(other.out + i * kStride, block.out + i * kStride);
    }
    hn::Store(max, d, block.max + column);
  }
}

// to[i][j] = scale · rows[j][i] for four i and one vector of j.
HWY_INLINE void GatherFour(const float* const* rows, int64_t i, float scale, float* to) {
  const Floats d;
  const int64_t lanes = LanesOf(d);
  HWY_ALIGN float packed[4 * 16];
  for (int64_t j = 0; j < lanes; ++j) std::memcpy(packed + 4 * j, rows[j] + i, 4 * sizeof(float));
  Vector a, b, c, e;
  hn::LoadInterleaved4(d, packed, a, b, c, e);
  const Vector factor = hn::Set(d, scale);
  hn::Store(hn::Mul(a, factor), d, to);
  hn::Store(hn::Mul(b, factor), d, to + kStride);
  hn::Store(hn::Mul(c, factor), d, to + 2 * kStride);
  hn::Store(hn::Mul(e, factor), d, to + 3 * kStride);
}

void Start(const float* const* rows, float scale, AttentionBlock& block) {
  const Floats d;
  const int64_t lanes = LanesOf(d);
  const int64_t head_dim = block.head_dim;
  for (int64_t column = 0; column < PaddedQueries(block); column += lanes) {
    const float* lane_rows[16];
    for (int64_t j = 0; j < lanes; ++j) {
      lane_rows[j] = rows[std::min(column + j, block.query_count - 1)];
    }
    float* to = block.queries + column;
    int64_t i = 0;
    for (; i + 4 <= head_dim; i += 4) GatherFour(lane_rows, i, scale, to + i * kStride);
    for (; i < head_dim; ++i) {
      for (int64_t j = 0; j < lanes; ++j) to[i * kStride + j] = lane_rows[j][i] * scale;
    }
    hn::Store(hn::Set(d, kMasked), d, block.max + column);
    hn::Store(hn::Zero(d), d, block.sum + column);
    for (i = 0; i < head_dim; ++i) {
      hn::Store(hn::Zero(d), d, block.out + i * kStride + column);
    }
  }
}

// rows[j][i] = out[i][j] · inverse[j] for four i and up to one vector of j.
HWY_INLINE void ScatterFour(const float* from, Vector inverse, int64_t i, int64_t count,
                            float* const* rows) {
  const Floats d;
  HWY_ALIGN float packed[4 * 16];
  const Vector a = hn::Mul(hn::Load(d, from), inverse);
  const Vector b = hn::Mul(hn::Load(d, from + kStride), inverse);
  const Vector c = hn::Mul(hn::Load(d, from + 2 * kStride), inverse);
  const Vector e = hn::Mul(hn::Load(d, from + 3 * kStride), inverse);
  hn::StoreInterleaved4(a, b, c, e, d, packed);
  for (int64_t j = 0; j < count; ++j) std::memcpy(rows[j] + i, packed + 4 * j, 4 * sizeof(float));
}

void Finish(const AttentionBlock& block, float* const* rows) {
  const Floats d;
  const int64_t lanes = LanesOf(d);
  for (int64_t column = 0; column < block.query_count; column += lanes) {
    const int64_t count = std::min(lanes, block.query_count - column);
    const Vector inverse = hn::Div(hn::Set(d, 1.0f), hn::Load(d, block.sum + column));
    const float* from = block.out + column;
    int64_t i = 0;
    for (; i + 4 <= block.head_dim; i += 4) {
      ScatterFour(from + i * kStride, inverse, i, count, rows + column);
    }
    for (; i < block.head_dim; ++i) {
      for (int64_t j = 0; j < count; ++j) {
        rows[column + j][i] = from[i * kStride + j] / block.sum[column + j];
      }
    }
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace mneme
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mneme {

HWY_EXPORT(Start);
HWY_EXPORT(Attend);
HWY_EXPORT(Merge);
HWY_EXPORT(Finish);

int64_t BlockFloats(int64_t head_dim) {
  return (2 * head_dim + kTileKeys + 4) * kMaxBlockQueries + 2 * kTileKeys * head_dim;
}

AttentionBlock PlaceBlock(float* memory, int64_t head_dim) {
  AttentionBlock block;
  block.head_dim = head_dim;
  const auto take = [&memory](int64_t floats) {
    float* taken = memory;
    memory += floats;
    return taken;
  };
  block.queries = take(head_dim * kMaxBlockQueries);
  block.keys = take(kTileKeys * head_dim);
  block.values = take(kTileKeys * head_dim);
  block.scores = take(kTileKeys * kMaxBlockQueries);
  block.out = take(head_dim * kMaxBlockQueries);
  block.max = take(kMaxBlockQueries);
  block.sum = take(kMaxBlockQueries);
  block.correction = take(kMaxBlockQueries);
  block.last_key = reinterpret_cast<int32_t*>(take(kMaxBlockQueries));
  return block;
}

void StartBlock(const float* const* rows, float scale, AttentionBlock& block) {
  HWY_DYNAMIC_DISPATCH(Start)(rows, scale, block);
}

void AttendTile(const KeyValueTile& tile, AttentionBlock& block) {
  HWY_DYNAMIC_DISPATCH(Attend)(tile, block);
}

void MergeBlock(const AttentionBlock& other, AttentionBlock& block) {
  HWY_DYNAMIC_DISPATCH(Merge)(other, block);
}

void FinishBlock(const AttentionBlock& block, float* const* rows) {
  HWY_DYNAMIC_DISPATCH(Finish)(block, rows);
}

}  // namespace mneme
#endif  // HWY_ONCE
