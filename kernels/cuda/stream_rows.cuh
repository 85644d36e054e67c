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

// What the rows of x are multiplied as: as they are, or normalised. RMSNorm is a factor for each
// column, which x is multiplied by here and rounded once, and one for each row, 1 / rms(x), which
// the sums are multiplied by when they are stored. Only where k is not cut.
struct NoNorm {
  static constexpr bool kNormed = false;
};
struct StreamNorm {
  static constexpr bool kNormed = true;

  const float* weight;  // [k], aligned to 16 bytes
  float epsilon;
};

// Vectors of eight columns that a lane has at most, and so the columns of a norm.
inline constexpr int kNormVectors = 4;
inline constexpr int kMaxNormColumns =
    kNormVectors * 8 * 32 * WeightMath<__nv_bfloat16>::kConsumerWarps;

// Of each weight row the consumers take steps of kStepBytes in turn; a consumer's columns of x are
// those of its steps, cut into vectors that its lanes take in turn. One warp.
template <typename T>
class ConsumerRows {
 public:
  static constexpr int kConsumers = WeightMath<T>::kConsumerWarps;
  static constexpr int kStepBytes = 64, kStepColumns = kStepBytes / static_cast<int>(sizeof(T));

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
      if (column < columns) loaded.vectors[i] = LoadFloats<8>(weight + column);
    }
    return loaded;
  }

  // Multiplies the rows that Load brought by the weights; squares[row]: the sum of what the
  // consumer's columns had squared.
  __device__ void Scale(const NormWeights& weights, int count, int columns, float* squares) const {
    for (int row = 0; row < count; ++row) {
      auto* const x = reinterpret_cast<__nv_bfloat16*>(rows_ + row * row_bytes_);
      Vec16<__nv_bfloat16> vectors[kNormVectors];  // read all before the first is written
#pragma unroll
      for (int i = 0; i < kNormVectors; ++i) {
        const int column = Column(lane_ + 32 * i);
        if (column < columns) vectors[i] = LoadVec16(x + column);
      }
      float sum = 0;
#pragma unroll
      for (int i = 0; i < kNormVectors; ++i) {
        const int column = Column(lane_ + 32 * i);
        if (column >= columns) continue;
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          const float value = ToFloat(vectors[i].values[j]);
          sum += value * value;
          vectors[i].values[j] = FromFloat<__nv_bfloat16>(value * weights.vectors[i].at[j]);
        }
        StoreVec16(x + column, vectors[i]);
      }
      sum = WarpSum(sum);
      if (lane_ == 0) squares[row] = sum;
    }
    __syncwarp();
  }

 private:
  static constexpr int kStepVectors = kStepColumns / 8;

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
