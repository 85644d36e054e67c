#ifndef MNEME_KERNELS_CUDA_ROW_MATH_CUH_
#define MNEME_KERNELS_CUDA_ROW_MATH_CUH_

// The arithmetic of norms and gates, which kernels of their own and fused products share.

#include <cuda_runtime.h>

#include <cstdint>

namespace mneme::cuda {

__device__ __forceinline__ float InverseRms(float sum_squares, int64_t cols, float epsilon) {
  return 1.0f / sqrtf(sum_squares / static_cast<float>(cols) + epsilon);
}

__device__ __forceinline__ float SwiGluOf(float gate, float up) {
  // e⁸⁸ is the largest power in float32; beyond it silu is 0 to within 1e-35.
  return __fdividef(gate, 1.0f + expf(fminf(-gate, 88.0f))) * up;
}

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_ROW_MATH_CUH_
