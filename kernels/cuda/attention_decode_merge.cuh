#ifndef MNEME_KERNELS_CUDA_ATTENTION_DECODE_MERGE_CUH_
#define MNEME_KERNELS_CUDA_ATTENTION_DECODE_MERGE_CUH_

// How decode attention's partial results become one.

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/attention_decode_work.cuh"
#include "kernels/cuda/device.cuh"

namespace mneme::cuda::decode {

// Weighted sums of one query head over several parts, as the lanes of a warp hold them.
template <int kHeadDim>
struct HeadSum {
  static constexpr int kPerLane = kHeadDim / 32;
  float max = -INFINITY;
  float sum = 0;
  float value[kPerLane] = {};
};

// A lane's elements, as one memory access.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Elements {
  T x[kCount];
};

// Merges `count` parts in their order: part i has its sums at `sums(i)`, its stats at `stats(i)`.
template <int kHeadDim, typename Sums, typename Stats>
__device__ HeadSum<kHeadDim> MergeParts(int count, const Sums& sums, const Stats& stats) {
  constexpr int kPerLane = HeadSum<kHeadDim>::kPerLane;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  HeadSum<kHeadDim> all;
  for (int i = lane; i < count; i += 32) all.max = fmaxf(all.max, stats(i).x);
  all.max = WarpMax(all.max);
  for (int first = 0; first < count; first += 32) {
    float weight = 0;
    if (first + lane < count) {
      const float2 part = stats(first + lane);
      weight = exp2f(part.x - all.max);  // 0 for a part without tokens
      all.sum += weight * part.y;
    }
    const int here = min(32, count - first);
#pragma unroll 8
    for (int i = 0; i < here; ++i) {
      const float w = __shfl_sync(~0u, weight, i);
      const float* const part = sums(first + i) + lane * kPerLane;
      alignas(16) float x[kPerLane];
      if constexpr (kPerLane == 4) {
        *reinterpret_cast<float4*>(x) = __ldcg(reinterpret_cast<const float4*>(part));
      } else {
        *reinterpret_cast<float2*>(x) = __ldcg(reinterpret_cast<const float2*>(part));
      }
#pragma unroll
      for (int j = 0; j < kPerLane; ++j) all.value[j] += w * x[j];
    }
  }
  all.sum = WarpSum(all.sum);
  return all;
}

template <int kHeadDim>
__device__ void StoreHead(const HeadSum<kHeadDim>& head, const DecodeArguments& args,
                          const Piece& piece, int query) {
  constexpr int kPerLane = HeadSum<kHeadDim>::kPerLane;
  BFloat16* const out = args.out + piece.sequence * args.out_stride +
                        int64_t{piece.head * args.group + query} * kHeadDim +
                        static_cast<int>(threadIdx.x) % 32 * kPerLane;
  Elements<BFloat16, kPerLane> result;
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) {
    result.x[j] = FromFloat<BFloat16>(head.value[j] / head.sum);
  }
  *reinterpret_cast<Elements<BFloat16, kPerLane>*>(out) = result;
}

// Where block `block` leaves its partial result of a segment: a block has at most two.
__device__ inline int64_t PartialSlot(const Piece& piece, int block, int query) {
  const bool begins = block == piece.first_block;
  return (int64_t{block} * 2 + (begins ? 1 : 0)) * kMaxGroup + query;
}

// Leaves the piece's result for the block that will merge the segment.
template <int kHeadDim>
__device__ void StorePartial(const HeadSum<kHeadDim>& head, const DecodeArguments& args,
                             const Piece& piece, int query) {
  constexpr int kPerLane = HeadSum<kHeadDim>::kPerLane;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t slot = PartialSlot(piece, static_cast<int>(blockIdx.x), query);
  float* const to = args.partials + slot * kMaxHeadDim + lane * kPerLane;
  Elements<float, kPerLane> values;
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) values.x[j] = head.value[j];
  *reinterpret_cast<Elements<float, kPerLane>*>(to) = values;
  if (lane == 0) args.partial_stats[slot] = {head.max, head.sum};
}

// Whether this block is the last of the segment's to come here; all its threads come.
__device__ inline bool ArriveLast(const DecodeArguments& args, const Piece& piece) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    int* const arrivals = &args.arrivals[piece.first_block];
    last = atomicAdd(arrivals, 1) == piece.last_block - piece.first_block;
    if (last) *arrivals = 0;
    __threadfence();
  }
  __syncthreads();
  return last;
}

}  // namespace mneme::cuda::decode

#endif  // MNEME_KERNELS_CUDA_ATTENTION_DECODE_MERGE_CUH_
