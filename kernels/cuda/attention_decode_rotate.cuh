#ifndef MNEME_KERNELS_CUDA_ATTENTION_DECODE_ROTATE_CUH_
#define MNEME_KERNELS_CUDA_ATTENTION_DECODE_ROTATE_CUH_

// RotateAndStore within decode attention: a query head is normalised and rotated by each warp that
// multiplies it, a step's key by the warp that has the slab which it is the last row of, and which
// stores it.

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/attention_decode_copies.cuh"
#include "kernels/cuda/attention_decode_work.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/row_math.cuh"

namespace mneme::cuda::decode {

__device__ __forceinline__ float2 UnpackPair(uint32_t pair) {
  return __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(pair));
}
__device__ __forceinline__ float SumOfSquares(float2 x) { return x.x * x.x + x.y * x.y; }

// Two neighbouring elements of a head and their partners half a head on, `at` being the first.
struct RotatedPairs {
  float2 low, high;

  __device__ void Load(uint32_t low_pair, uint32_t high_pair) {
    low = UnpackPair(low_pair);
    high = UnpackPair(high_pair);
  }
  __device__ float sum_of_squares() const { return SumOfSquares(low) + SumOfSquares(high); }
  __device__ void Scale(const float* weight, float inverse, int at, int half) {
    const float2 w = *reinterpret_cast<const float2*>(weight + at);
    const float2 v = *reinterpret_cast<const float2*>(weight + half + at);
    low = {low.x * inverse * w.x, low.y * inverse * w.y};
    high = {high.x * inverse * v.x, high.y * inverse * v.y};
  }
  // rope: cosines, then sines, of the row.
  __device__ void Rotate(const float* rope, int at, int half) {
    const float2 cosine = *reinterpret_cast<const float2*>(rope + at);
    const float2 sine = *reinterpret_cast<const float2*>(rope + half + at);
    const float2 first = {low.x * cosine.x - high.x * sine.x, low.y * cosine.y - high.y * sine.y};
    high = {low.x * sine.x + high.x * cosine.x, low.y * sine.y + high.y * cosine.y};
    low = first;
  }
};

// Rotates a query head as WarpSums holds it: q[i] has the pairs at 16 i + 2 (lane % 4), and 8 on,
// shared with the three other lanes of the four.
template <int kHeadDim>
__device__ void RotateQuery(const DecodeArguments& args, int sequence,
                            uint32_t (&q)[kHeadDim / 16][2]) {
  constexpr int kHalf = kHeadDim / 2, kPairs = kHeadDim / 32;
  const Rotation& rotation = args.rotation;
  RotatedPairs pairs[kPairs][2];
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      pairs[i][j].Load(q[i][j], q[i + kPairs][j]);
      sum += pairs[i][j].sum_of_squares();
    }
  }
  sum += __shfl_xor_sync(~0u, sum, 1);
  sum += __shfl_xor_sync(~0u, sum, 2);
  const float inverse = InverseRms(sum, kHeadDim, rotation.epsilon);
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int at = 16 * i + 8 * j + 2 * (static_cast<int>(threadIdx.x) % 4);
      RotatedPairs& pair = pairs[i][j];
      if (rotation.q_weight != nullptr) pair.Scale(rotation.q_weight, inverse, at, kHalf);
      pair.Rotate(rotation.rope + sequence * rotation.rope_stride, at, kHalf);
      q[i][j] = PackPair(pair.low.x, pair.low.y);
      q[i + kPairs][j] = PackPair(pair.high.x, pair.high.y);
    }
  }
}

// Puts a sequence's key and value of this step into the slab in shared memory, as its `slab_row`,
// and into the cache. One warp, which has waited for the kernel in front.
template <int kHeadDim>
__device__ void AddNewest(const DecodeArguments& args, const Segment& segment, int slab_row,
                          uint32_t keys) {
  constexpr int kHalf = kHeadDim / 2;
  const Rotation& rotation = args.rotation;
  const int at = 2 * (static_cast<int>(threadIdx.x) % 32);
  const bool mine = at < kHalf;
  const BFloat16* const key = args.qkv + segment.sequence * args.qkv_stride +
                              int64_t{args.kv_heads * args.group + segment.head} * kHeadDim;
  const BFloat16* const value = key + int64_t{args.kv_heads} * kHeadDim;
  const auto pair = [&](const BFloat16* from, int d) {
    return mine ? *reinterpret_cast<const uint32_t*>(from + d) : 0u;
  };
  RotatedPairs k;
  k.Load(pair(key, at), pair(key, kHalf + at));
  const uint32_t values[2] = {pair(value, at), pair(value, kHalf + at)};
  const float inverse = InverseRms(WarpSum(k.sum_of_squares()), kHeadDim, rotation.epsilon);
  if (!mine) return;
  if (rotation.k_weight != nullptr) k.Scale(rotation.k_weight, inverse, at, kHalf);
  k.Rotate(rotation.rope + segment.sequence * rotation.rope_stride, at, kHalf);
  const uint32_t rotated[2] = {PackPair(k.low.x, k.low.y), PackPair(k.high.x, k.high.y)};

  const int slot = args.step->groups[args.kv_group].slots[args.first_row + segment.sequence];
  const int page = Quotient(slot, args.page_tokens), row_width = args.kv_heads * kHeadDim;
  BFloat16* const stored = args.kv + page * args.page_stride +
                           int64_t{slot - page * args.page_tokens} * row_width +
                           segment.head * kHeadDim;
  BFloat16* const stored_value = stored + int64_t{args.page_tokens} * row_width;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int d = at + i * kHalf;
    const uint32_t place =
        keys + Place<kHeadDim>(slab_row, d / 8) + static_cast<uint32_t>(d % 8 * sizeof(BFloat16));
    StoreShared(place, rotated[i]);
    StoreShared(place + kSlabBytes<kHeadDim> / 2, values[i]);
    *reinterpret_cast<uint32_t*>(stored + d) = rotated[i];
    *reinterpret_cast<uint32_t*>(stored_value + d) = values[i];
  }
}

}  // namespace mneme::cuda::decode

#endif  // MNEME_KERNELS_CUDA_ATTENTION_DECODE_ROTATE_CUH_
