#ifndef MNEME_KERNELS_CUDA_DEVICE_CUH_
#define MNEME_KERNELS_CUDA_DEVICE_CUH_

// What device code of this folder shares: programmatic dependent launch, element conversions,
// 16-byte loads, reductions over warps and blocks.

#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace mneme::cuda {

// Until here a kernel may run beside the one before it; after it, all that one wrote is visible.
__device__ __forceinline__ void WaitForPrior() { cudaGridDependencySynchronize(); }
// The next kernel may be brought onto the multiprocessors (up to its own WaitForPrior).
__device__ __forceinline__ void LetNextStart() { cudaTriggerProgrammaticLaunchCompletion(); }

__device__ __forceinline__ float ToFloat(float x) { return x; }
__device__ __forceinline__ float ToFloat(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float ToFloat(__nv_fp8_e4m3 x) { return static_cast<float>(x); }

template <typename T>
__device__ __forceinline__ T FromFloat(float x);
template <>
__device__ __forceinline__ float FromFloat<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ __nv_bfloat16 FromFloat<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

// Sixteen bytes of elements, as one memory access.
template <typename T>
struct alignas(16) Vec16 {
  static constexpr int kCount = 16 / sizeof(T);
  T values[kCount];
};

template <typename T>
__device__ __forceinline__ Vec16<T> LoadVec16(const T* p) {
  return *reinterpret_cast<const Vec16<T>*>(p);
}
template <typename T>
__device__ __forceinline__ void StoreVec16(T* p, const Vec16<T>& v) {
  *reinterpret_cast<Vec16<T>*>(p) = v;
}

__device__ __forceinline__ float WarpSum(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(~0u, x, offset);
  return x;
}
__device__ __forceinline__ float WarpMax(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, offset));
  return x;
}

// Sum over the block, in every thread, in an order that depends on the block's size alone. All
// threads take part; `shared` holds one float a warp.
__device__ __forceinline__ float BlockSum(float x, float* shared) {
  x = WarpSum(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  const int warps = (blockDim.x + 31) / 32;
  float sum = 0;
  for (int i = 0; i < warps; ++i) sum += shared[i];
  return sum;
}

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_DEVICE_CUH_
