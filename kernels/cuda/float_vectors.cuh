#ifndef MNEME_KERNELS_CUDA_FLOAT_VECTORS_CUH_
#define MNEME_KERNELS_CUDA_FLOAT_VECTORS_CUH_

// kWidth neighbouring elements of any type as floats: eight at once (16-byte accesses, or 8 of fp8)
// where alignment allows, or one.

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include <cstdint>

#include "kernels/cuda/device.cuh"

namespace mneme::cuda {

template <int kWidth>
struct Floats {
  float at[kWidth];
};

template <int kWidth, typename T>
__device__ __forceinline__ Floats<kWidth> LoadFloats(const T* p) {
  Floats<kWidth> out;
  if constexpr (kWidth == 1) {
    out.at[0] = ToFloat(*p);
  } else {
    static_assert(kWidth == 8);
    constexpr int kBytes = 8 * static_cast<int>(sizeof(T));
    alignas(16) T values[8];
    if constexpr (kBytes == 8) {
      *reinterpret_cast<uint2*>(values) = *reinterpret_cast<const uint2*>(p);
    } else {
#pragma unroll
      for (int i = 0; i < kBytes / 16; ++i) {
        reinterpret_cast<uint4*>(values)[i] = reinterpret_cast<const uint4*>(p)[i];
      }
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) out.at[i] = ToFloat(values[i]);
  }
  return out;
}

// `values` are of type T already.
template <int kWidth, typename T>
__device__ __forceinline__ void StoreElements(T* p, const T (&values)[kWidth]) {
  if constexpr (kWidth == 1) {
    *p = values[0];
  } else {
    constexpr int kBytes = kWidth * static_cast<int>(sizeof(T));
    alignas(16) T copy[kWidth];
#pragma unroll
    for (int i = 0; i < kWidth; ++i) copy[i] = values[i];
    if constexpr (kBytes == 8) {
      *reinterpret_cast<uint2*>(p) = *reinterpret_cast<const uint2*>(copy);
    } else {
#pragma unroll
      for (int i = 0; i < kBytes / 16; ++i) {
        reinterpret_cast<uint4*>(p)[i] = reinterpret_cast<const uint4*>(copy)[i];
      }
    }
  }
}

// Rounds to nearest.
template <int kWidth, typename T>
__device__ __forceinline__ void StoreFloats(T* p, const Floats<kWidth>& values) {
  T elements[kWidth];
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    if constexpr (sizeof(T) == 1) {
      elements[i] = T(values.at[i]);
    } else {
      elements[i] = FromFloat<T>(values.at[i]);
    }
  }
  StoreElements<kWidth>(p, elements);
}

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_FLOAT_VECTORS_CUH_
