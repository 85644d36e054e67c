#ifndef MNEME_KERNELS_CUDA_FAST_WEIGHT_DEVICE_CUH_
#define MNEME_KERNELS_CUDA_FAST_WEIGHT_DEVICE_CUH_

// What the kernels of updates share.

#include <cstdint>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/fast_weight_kernels.h"

namespace mneme::cuda {

inline constexpr int kUpdateThreads = 256;

// Whether the update has to be measured before it is applied: it has controls, or the largest
// factors do not prove that neither U nor a square of it overflows. NaN and infinity prove nothing.
__device__ __forceinline__ bool MustMeasure(const UpdateBatch& batch, int index) {
  const UpdateTask& task = batch.tasks[index];
  const uint32_t* maxima = batch.control->maxima[index];
  const float bound = fabsf(task.factor) * static_cast<float>(task.rows) *
                      __uint_as_float(maxima[0]) * __uint_as_float(maxima[1]);
  return task.controlled() || !(bound < 1e18f);
}

// Sum over a block of kUpdateThreads, in thread 0, in a fixed order. All threads take part.
__device__ __forceinline__ double BlockSumDouble(double x) {
  __shared__ double sums[kUpdateThreads / 32];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(~0u, x, offset);
  __syncthreads();
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = x;
  __syncthreads();
  double sum = 0;
  for (int i = 0; i < kUpdateThreads / 32; ++i) sum += sums[i];
  return sum;
}

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_FAST_WEIGHT_DEVICE_CUH_
