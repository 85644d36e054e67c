#ifndef MNEME_KERNELS_CUDA_FAST_WEIGHT_ROUNDING_CUH_
#define MNEME_KERNELS_CUDA_FAST_WEIGHT_ROUNDING_CUH_

// How values of ΔW are rounded, and their squares summed up.

#include <cuda_bf16.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/float_vectors.cuh"

namespace mneme::cuda {

__device__ __forceinline__ uint32_t Mix(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

// Rounds to T. To bf16 up or down at random, with the odds that keep the expected value: 16 random
// bits, a function of the element and of how often this ΔW was updated, are added to the 16 bits
// that are cut off. A value that is a bf16 already stays as it is.
template <typename T>
class Rounding {
 public:
  __device__ explicit Rounding(uint32_t update) : seed_(Mix(update * 0x9e3779b9u + 0x85ebca6bu)) {}

  // `first_element`: a multiple of kWidth.
  template <int kWidth>
  __device__ __forceinline__ void Round(const Floats<kWidth>& from, int64_t first_element,
                                        T (&to)[kWidth]) const {
    if constexpr (std::is_same_v<T, float>) {
#pragma unroll
      for (int i = 0; i < kWidth; ++i) to[i] = from.at[i];
    } else {
      uint32_t bits[kWidth];
      RoundBits(from, first_element, bits);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        to[i] = __ushort_as_bfloat16(static_cast<unsigned short>(bits[i] >> 16));
      }
    }
  }

  // The bf16s are the upper halves of `to`.
  template <int kWidth>
  __device__ __forceinline__ void RoundBits(const Floats<kWidth>& from, int64_t first_element,
                                            uint32_t (&to)[kWidth]) const {
    // Eight neighbours share a hash, two of them 32 bits made of it.
    const uint32_t hash = Mix(static_cast<uint32_t>(first_element >> 3) * 0x9e3779b1u ^ seed_);
    const int first = kWidth == 8 ? 0 : static_cast<int>(first_element & 7);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const uint32_t random = Spread(hash, (first + i) / 2);
      const uint32_t part = (first + i) % 2 == 0 ? random & 0xffffu : random >> 16;
      // Infinity has no bits to cut off. The addition would take NaN to anything.
      to[i] = from.at[i] == from.at[i] ? __float_as_uint(from.at[i]) + part : 0x7fffffffu;
    }
  }

 private:
  static __device__ __forceinline__ uint32_t Spread(uint32_t hash, int i) {
    const uint32_t bits = hash * (i == 0   ? 0x9e3779b1u
                                  : i == 1 ? 0x85ebca77u
                                  : i == 2 ? 0xc2b2ae3du
                                           : 0x27d4eb2fu);
    return bits ^ (bits >> 15);
  }

  uint32_t seed_;
};

// Σ x² in float32 where it is in its range, else in double.
template <int kWidth>
__device__ __forceinline__ double SumSquares(const Floats<kWidth>& x) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) sum = fmaf(x.at[i], x.at[i], sum);
  if (sum < 1e37f) return static_cast<double>(sum);
  double wide = 0;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    wide += static_cast<double>(x.at[i]) * static_cast<double>(x.at[i]);
  }
  return wide;
}

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_FAST_WEIGHT_ROUNDING_CUH_
