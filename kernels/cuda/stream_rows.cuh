#ifndef MNEME_KERNELS_CUDA_STREAM_ROWS_CUH_
#define MNEME_KERNELS_CUDA_STREAM_ROWS_CUH_

// How a consumer of weight_stream.cuh brings its columns of x to shared memory, and what becomes of
// them on the way in.

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/float_vectors.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/stream_plan.h"
#include "kernels/cuda/weight_fragments.cuh"

namespace mneme::cuda {

// RMSNorm on the rows of x is a factor for each column, which x is multiplied by here and rounded
// once, and one for each row, 1 / rms(x), which the sums are multiplied by when they are stored.
struct StreamNorm {
  const float* weight = nullptr;  // [k], aligned to 16 bytes; null: no norm
  float epsilon = 0;
  __nv_bfloat16* rows = nullptr;  // where the normalised rows go as well; null: nowhere
  int64_t rows_stride = 0;
};

// Eight columns of a row as RMSNorm gives them, rounded once; `factor`: 1 / rms(row).
__device__ __forceinline__ void StoreNormedVector(const __nv_bfloat16* x, const float* weight,
                                                  float factor, __nv_bfloat16* out) {
  const Floats<8> weights = LoadFloats<8>(weight);
  Vec16<__nv_bfloat16> values = LoadVec16(x);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    values.values[i] = FromFloat<__nv_bfloat16>(ToFloat(values.values[i]) * factor * weights.at[i]);
  }
  StoreVec16(out, values);
}

inline constexpr int kMaxNormColumns = 4096;

// Of each weight row the consumers take steps of kStepBytes in turn; a consumer's columns of x are
// those of its steps, cut into vectors that its lanes take in turn. One warp.
template <typename T>
class ConsumerRows {
 public:
  static constexpr int kStepBytes = 64, kStepColumns = kStepBytes / static_cast<int>(sizeof(T));

  // Vectors of eight columns that a lane has at most.
  static constexpr int kNormVectors = kMaxNormColumns / (8 * 32 * kConsumers);

  // The lane's factors for its columns, in registers.
  struct NormWeights {
    Floats<8> vectors[kNormVectors];
  };

  __device__ ConsumerRows(char* rows, int row_bytes, int consumer, int lane)
      : rows_(rows), row_bytes_(row_bytes), consumer_(consumer), lane_(lane) {}

  // Brings `count` rows of x, from `x` on. Zeros in the consumer's last step beyond the columns.
  __device__ void Load(const __nv_bfloat16* x, int64_t stride, int count, int columns) const {
    const int steps = CeilDivide(CeilDivide(columns, kStepColumns) - consumer_, kConsumers);
    __syncwarp();
    for (int row = 0; row < count; ++row) {
      const uint32_t to = SharedAddress(rows_ + row * row_bytes_);
      for (int i = lane_; i < steps * kStepVectors; i += 32) {
        const int column = Column(i);
        const bool in = column < columns;
        CopyAsync16(to + static_cast<uint32_t>(column) * 2, x + row * stride + (in ? column : 0),
                    in);
      }
    }
    CommitCopies();
    WaitForCopies<0>();
    __syncwarp();
  }

  __device__ NormWeights LoadNormWeights(const float* weight, int columns) const {
    NormWeights loaded;
#pragma unroll
    for (int i = 0; i < kNormVectors; ++i) {
      const int column = Column(lane_ + 32 * i);
      loaded.vectors[i] = column < columns ? LoadFloats<8>(weight + column) : Floats<8>{};
    }
    return loaded;
  }

  // Multiplies the rows that Load brought by the weights; squares[row]: the sum of what the
  // consumer's columns had squared.
  __device__ void Scale(const NormWeights& weights, int count, int columns, float* squares) const {
    for (int row = 0; row < count; row += kRowsAtOnce) {
      ScaleRows(weights, row, min(kRowsAtOnce, count - row), columns, squares);
    }
    __syncwarp();
  }

 private:
  static constexpr int kStepVectors = kStepColumns / 8;
  static constexpr int kRowsAtOnce = 4;

  // All is read before the first is written, so that rows do not wait for one another.
  __device__ void ScaleRows(const NormWeights& weights, int first, int count, int columns,
                            float* squares) const {
    Vec16<__nv_bfloat16> vectors[kRowsAtOnce][kNormVectors];
    const auto address = [&](int row, int i) {
      const int column = Column(lane_ + 32 * i);
      auto* const x = reinterpret_cast<__nv_bfloat16*>(rows_ + (first + row) * row_bytes_);
      return row < count && column < columns ? x + column : nullptr;
    };
#pragma unroll
    for (int row = 0; row < kRowsAtOnce; ++row) {
#pragma unroll
      for (int i = 0; i < kNormVectors; ++i) {
        const __nv_bfloat16* const x = address(row, i);
        vectors[row][i] = x != nullptr ? LoadVec16(x) : Vec16<__nv_bfloat16>{};
      }
    }
    float sums[kRowsAtOnce] = {};
#pragma unroll
    for (int row = 0; row < kRowsAtOnce; ++row) {
#pragma unroll
      for (int i = 0; i < kNormVectors; ++i) {
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          const float value = ToFloat(vectors[row][i].values[j]);
          sums[row] += value * value;
          vectors[row][i].values[j] = FromFloat<__nv_bfloat16>(value * weights.vectors[i].at[j]);
        }
        if (__nv_bfloat16* const x = address(row, i); x != nullptr) StoreVec16(x, vectors[row][i]);
      }
    }
#pragma unroll
    for (int row = 0; row < kRowsAtOnce; ++row) {
      sums[row] = WarpSum(sums[row]);
      if (lane_ == 0 && row < count) squares[first + row] = sums[row];
    }
  }

  // The first column of the consumer's i-th vector.
  __device__ int Column(int i) const {
    return (consumer_ + i / kStepVectors * kConsumers) * kStepColumns + i % kStepVectors * 8;
  }

  char* const rows_;
  const int row_bytes_;
  const int consumer_, lane_;
};

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_STREAM_ROWS_CUH_
