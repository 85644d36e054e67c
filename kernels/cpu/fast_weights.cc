#include "kernels/cpu/fast_weights.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numeric>

#include "kernels/cpu/fast_weight_loops.h"
#include "kernels/cpu/parallel.h"

namespace mneme {
namespace {

// Up to so many rows, reading ΔW is what costs, and a pass of our own beats the general product.
constexpr int64_t kFewRows = 8;

const float* Row(Matrix m, int64_t row) {
  return static_cast<const float*>(m.data) + row * m.stride;
}

Matrix Dense(const void* data, int64_t rows, int64_t cols) {
  return {const_cast<void*>(data), DType::kF32, rows, cols, cols};
}

}  // namespace

void FastWeights::DownProject(absl::Span<const ChunkSegment> segments, int64_t layer, Matrix z,
                              const CpuPackedMatrix& w_down, Matrix y) {
  AddBase(segments, z, w_down, y);
  for (const ChunkSegment& segment : segments) {
    if (segment.deltas.empty() || segment.row_count == 0) continue;
    const void* delta = segment.deltas[static_cast<size_t>(layer)];
    if (delta == nullptr) continue;
    AddDelta(delta, z.Rows(segment.first_row, segment.row_count),
             y.Rows(segment.first_row, segment.row_count));
  }
}

// The slow weights' part, for whole runs of neighbouring segments at once.
void FastWeights::AddBase(absl::Span<const ChunkSegment> segments, Matrix z,
                          const CpuPackedMatrix& w_down, Matrix y) {
  for (size_t i = 0; i < segments.size();) {
    const int64_t first = segments[i].first_row;
    int64_t end = first;
    for (; i < segments.size() && segments[i].first_row == end; ++i) end += segments[i].row_count;
    matmul_->Linear(z.Rows(first, end - first), w_down, nullptr, true, y.Rows(first, end - first));
  }
}

void FastWeights::AddDelta(const void* values, Matrix rows, Matrix out) {
  const Matrix delta = Dense(values, out.cols, rows.cols);
  if (rows.rows > kFewRows) return MultiplyAdd(rows, delta, out);
  constexpr int64_t kBlock = 16;  // rows of ΔW that a thread takes at once
  ParallelFor((out.cols + kBlock - 1) / kBlock, ThreadsFor(out.cols * rows.cols, threads_),
              [&](int64_t block) {
                const int64_t first = block * kBlock;
                const int64_t count = std::min(kBlock, out.cols - first);
                for (int64_t row = 0; row < rows.rows; row += kGemvRows) {
                  GemvAdd(Row(delta, first), count, rows.cols, Row(rows, row), rows.stride,
                          std::min(kGemvRows, rows.rows - row),
                          static_cast<float*>(out.data) + row * out.stride + first, out.stride);
                }
              });
}

ChunkUpdateResult FastWeights::Update(const FastWeightLayer& layer, const ChunkUpdate& update) {
  const Matrix v = TargetValues(layer, update);
  const Matrix u = Dense(update_.Floats(v.cols * update.z.cols), v.cols, update.z.cols);
  MultiplyTransposed(v, update.z, u);

  ChunkUpdateResult result;
  const float* values = static_cast<const float*>(u.data);
  result.update_norm = std::sqrt(SumRows(
      u.rows, u.cols, [&](int64_t row) { return SumSquaresRow(values + row * u.cols, u.cols); }));
  if (std::isfinite(result.update_norm)) {
    Apply(layer, update, values, result);
  } else {
    Skip(update, result);
  }
  return result;
}

// η lr_scale v [C, d]: the factors here cost less than on U.
Matrix FastWeights::TargetValues(const FastWeightLayer& layer, const ChunkUpdate& update) {
  const Matrix c = Convolve(layer.conv, layer.learning_rate * update.lr_scale, update.target);
  if (layer.projection == nullptr) return c;
  const Matrix v = Dense(projected_.Floats(c.rows * c.cols), c.rows, c.cols);
  matmul_->Linear(c, static_cast<const CpuPackedMatrix&>(*layer.projection), nullptr, false, v);
  return v;
}

// scale · the depthwise convolution of the target's rows, those outside the chunk being zero.
Matrix FastWeights::Convolve(Matrix conv, float scale, Matrix target) {
  float* taps = taps_.Floats(kConvTaps * target.cols);
  for (int64_t i = 0; i < target.cols; ++i) {
    for (int64_t j = 0; j < kConvTaps; ++j) taps[j * target.cols + i] = scale * Row(conv, i)[j];
  }
  const Matrix out = Dense(convolved_.Floats(target.rows * target.cols), target.rows, target.cols);
  ParallelFor(out.rows, ThreadsFor(out.rows * out.cols, threads_), [&](int64_t p) {
    std::array<const float*, kConvTaps> rows;
    for (int64_t j = 0; j < kConvTaps; ++j) {
      const int64_t q = p + j - kConvTaps / 2;
      rows[static_cast<size_t>(j)] = q < 0 || q >= target.rows ? nullptr : Row(target, q);
    }
    ConvRow(rows, taps, out.cols, static_cast<float*>(out.data) + p * out.cols);
  });
  return out;
}

// Σ row_sum(row), added in the order of rows whatever the threads.
double FastWeights::SumRows(int64_t rows, int64_t cols,
                            const std::function<double(int64_t)>& row_sum) {
  row_sums_.resize(static_cast<size_t>(rows));
  ParallelFor(rows, ThreadsFor(rows * cols, threads_),
              [&](int64_t row) { row_sums_[static_cast<size_t>(row)] = row_sum(row); });
  return std::accumulate(row_sums_.begin(), row_sums_.end(), 0.0);
}

// Clips U, decays ΔW and adds, unless the candidate is too large.
void FastWeights::Apply(const FastWeightLayer& layer, const ChunkUpdate& update, const float* u,
                        ChunkUpdateResult& result) {
  const int64_t d = update.target.cols, f = update.z.cols;
  float* delta = static_cast<float*>(update.delta);
  result.clipped = update.clip_norm > 0 && result.update_norm > double{update.clip_norm};
  const float scale =
      result.clipped ? static_cast<float>(update.clip_norm / result.update_norm) : 1.0f;
  const auto combine = [&](bool store) {
    const double squares = SumRows(d, f, [&](int64_t row) {
      return CombineRow(update.delta_is_zero ? nullptr : delta + row * f, 1 - update.decay,
                        u + row * f, scale, f, store ? delta + row * f : nullptr);
    });
    return std::sqrt(squares);
  };
  if (update.max_relative_norm > 0 &&
      !(combine(false) <= double{update.max_relative_norm} * layer.down_norm)) {
    return Skip(update, result);
  }
  result.delta_norm = combine(true);
}

// Leaves ΔW as it is.
void FastWeights::Skip(const ChunkUpdate& update, ChunkUpdateResult& result) {
  const int64_t d = update.target.cols, f = update.z.cols;
  float* delta = static_cast<float*>(update.delta);
  result.skipped = true;
  if (update.delta_is_zero) {
    std::memset(delta, 0, static_cast<size_t>(d * f) * sizeof(float));
    return;
  }
  result.delta_norm =
      std::sqrt(SumRows(d, f, [&](int64_t row) { return SumSquaresRow(delta + row * f, f); }));
}

}  // namespace mneme
