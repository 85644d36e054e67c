#ifndef MNEME_KERNELS_CUDA_WEIGHT_FRAGMENTS_CUH_
#define MNEME_KERNELS_CUDA_WEIGHT_FRAGMENTS_CUH_

// 16 weight rows times 8 bf16 rows of x on the tensor cores, for each type of weight.
//
// In an mma.m16n8 the lane (g, t) = (lane / 4, lane % 4) holds weights of the rows g and g + 8 and
// values of x's row g, at the same columns. Which columns those are is free as long as weights and
// x agree; so each lane takes 16 neighbouring bytes of both its weight rows as they lie, and the
// values of x at the same columns. It gets the sums of the weight rows g (sum[0], sum[1]) and g + 8
// (sum[2], sum[3]) with x's rows 2t and 2t + 1.

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include <cstdint>

#include "kernels/cuda/mma.cuh"

namespace mneme::cuda {

struct Sums {
  float sum[4] = {0, 0, 0, 0};
};

__device__ __forceinline__ void MmaBf16(Sums& s, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                        uint32_t b0, uint32_t b1) {
  const uint32_t a[4] = {a0, a1, a2, a3};
  MultiplyAdd(s.sum, a, b0, b1);
}
__device__ __forceinline__ void MmaTf32(Sums& s, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                        uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"
      " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(s.sum[0]), "+f"(s.sum[1]), "+f"(s.sum[2]), "+f"(s.sum[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Four e4m3 as two pairs of bf16, exactly: exponent and mantissa are moved into bf16's fields, and
// a factor makes up for the difference of the exponents' biases (subnormals included).
__device__ __forceinline__ uint2 Bf16OfE4m3(uint32_t four) {
  const auto pair = [](uint32_t high_bytes) {
    const uint32_t bits = (high_bytes & 0x80008000u) | ((high_bytes >> 4) & 0x07f007f0u);
    constexpr uint32_t kTwoTo120 = 0x7b807b80u;
    const __nv_bfloat162 scaled = __hmul2(reinterpret_cast<const __nv_bfloat162&>(bits),
                                          reinterpret_cast<const __nv_bfloat162&>(kTwoTo120));
    return reinterpret_cast<const uint32_t&>(scaled);
  };
  return {pair(__byte_perm(four, 0, 0x1404)), pair(__byte_perm(four, 0, 0x3424))};
}

// kRowPadBytes: between x's rows
// in shared memory, whose length without it is a multiple of 128, so that a warp's reads spread
// over all banks. Multiply: `low`, `high` are the lane's bytes of rows g and g + 8, `x` its values
// of x in shared memory.
template <typename T>
struct WeightMath;

template <>
struct WeightMath<__nv_bfloat16> {
  static constexpr int kRowPadBytes = 64;

  __device__ static void Multiply(uint4 low, uint4 high, const __nv_bfloat16* x, Sums (&s)[2]) {
    const uint4 b = *reinterpret_cast<const uint4*>(x);
    MmaBf16(s[0], low.x, high.x, low.y, high.y, b.x, b.y);
    MmaBf16(s[1], low.z, high.z, low.w, high.w, b.z, b.w);
  }
};

template <>
struct WeightMath<__nv_fp8_e4m3> {
  static constexpr int kRowPadBytes = 16;

  __device__ static void Multiply(uint4 low, uint4 high, const __nv_bfloat16* x, Sums (&s)[2]) {
    const uint4 b0 = reinterpret_cast<const uint4*>(x)[0];
    const uint4 b1 = reinterpret_cast<const uint4*>(x)[1];
    MultiplyFour(low.x, high.x, b0.x, b0.y, s[0]);
    MultiplyFour(low.y, high.y, b0.z, b0.w, s[1]);
    MultiplyFour(low.z, high.z, b1.x, b1.y, s[0]);
    MultiplyFour(low.w, high.w, b1.z, b1.w, s[1]);
  }

 private:
  __device__ static void MultiplyFour(uint32_t low, uint32_t high, uint32_t b0, uint32_t b1,
                                      Sums& s) {
    const uint2 l = Bf16OfE4m3(low), h = Bf16OfE4m3(high);
    MmaBf16(s, l.x, h.x, l.y, h.y, b0, b1);
  }
};

// A float32 weight is the sum of two values of tf32 to 21 bits; x is bf16 and so one of tf32.
template <>
struct WeightMath<float> {
  static constexpr int kRowPadBytes = 32;

  __device__ static void Multiply(uint4 low, uint4 high, const __nv_bfloat16* x, Sums (&s)[2]) {
    const uint2 b = *reinterpret_cast<const uint2*>(x);
    MultiplyTwo(low.x, high.x, low.y, high.y, b.x, s);
    MultiplyTwo(low.z, high.z, low.w, high.w, b.y, s);
  }

 private:
  __device__ static uint32_t Large(uint32_t bits) { return bits & 0xffffe000u; }
  __device__ static uint32_t Small(uint32_t bits) {
    return __float_as_uint(__uint_as_float(bits) - __uint_as_float(Large(bits)));
  }
  __device__ static void MultiplyTwo(uint32_t low0, uint32_t high0, uint32_t low1, uint32_t high1,
                                     uint32_t pair, Sums (&s)[2]) {
    const uint32_t b0 = pair << 16, b1 = pair & 0xffff0000u;
    MmaTf32(s[0], Large(low0), Large(high0), Large(low1), Large(high1), b0, b1);
    MmaTf32(s[1], Small(low0), Small(high0), Small(low1), Small(high1), b0, b1);
  }
};

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_WEIGHT_FRAGMENTS_CUH_
