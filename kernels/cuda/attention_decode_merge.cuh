#ifndef MNEME_KERNELS_CUDA_ATTENTION_DECODE_MERGE_CUH_
#define MNEME_KERNELS_CUDA_ATTENTION_DECODE_MERGE_CUH_

// How decode attention's partial results become one.

#include <cuda_bf16.h>

#include <cstdint>
#include <cuda/atomic>

#include "kernels/cuda/attention_decode_work.cuh"
#include "kernels/cuda/device.cuh"

namespace mneme::cuda::decode {

// A lane's elements, as one memory access.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Elements {
  T x[kCount];
};

template <int kHeadDim>
inline constexpr int kPerLane = kHeadDim / 32;

// Weighted sums of one query head over several parts, as the lanes of a warp hold them. `max` is
// in units of log2.
template <int kHeadDim>
struct HeadSum {
  float max = -INFINITY;
  float sum = 0;
  float value[kPerLane<kHeadDim>] = {};

  __device__ void Add(float weight, const Elements<float, kPerLane<kHeadDim>>& values) {
#pragma unroll
    for (int j = 0; j < kPerLane<kHeadDim>; ++j) value[j] += weight * values.x[j];
  }
};

// What a warp leaves in shared memory of its slabs of a segment.
struct WarpPart {
  const float* sums;  // [kMaxGroup][kHeadDim + 4]
  float max[kMaxGroup], sum[kMaxGroup];
};

template <int kHeadDim>
__device__ HeadSum<kHeadDim> MergeWarps(const WarpPart (&parts)[kWarps], int query) {
  using Values = Elements<float, kPerLane<kHeadDim>>;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  HeadSum<kHeadDim> head;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) head.max = fmaxf(head.max, parts[w].max[query]);
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    const float weight = exp2f(parts[w].max[query] - head.max);  // 0 for a warp without slabs
    head.sum += weight * parts[w].sum[query];
    head.Add(weight, reinterpret_cast<const Values*>(parts[w].sums + query * (kHeadDim + 4))[lane]);
  }
  return head;
}

template <int kHeadDim>
__device__ void StoreHead(const HeadSum<kHeadDim>& head, const DecodeArguments& args, int sequence,
                          int kv_head, int query) {
  using Values = Elements<BFloat16, kPerLane<kHeadDim>>;
  BFloat16* const out =
      args.out + sequence * args.out_stride + int64_t{kv_head * args.group + query} * kHeadDim;
  Values result;
#pragma unroll
  for (int j = 0; j < kPerLane<kHeadDim>; ++j) {
    result.x[j] = FromFloat<BFloat16>(head.value[j] / head.sum);
  }
  reinterpret_cast<Values*>(out)[threadIdx.x % 32] = result;
}

// Where a block leaves its part of a segment that it shares: there is one at most that began in an
// earlier block, and one that begins in it.
__device__ inline int64_t PartSlot(int block, bool begins, int query) {
  return (int64_t{block} * 2 + (begins ? 1 : 0)) * kMaxGroup + query;
}

template <int kHeadDim>
__device__ void StorePart(const HeadSum<kHeadDim>& head, const DecodeArguments& args,
                          int64_t slot) {
  using Values = Elements<float, kPerLane<kHeadDim>>;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  Values values;
#pragma unroll
  for (int j = 0; j < kPerLane<kHeadDim>; ++j) values.x[j] = head.value[j];
  reinterpret_cast<Values*>(args.partials + slot * kMaxDecodeHeadDim)[lane] = values;
  if (lane == 0) args.partial_stats[slot] = {head.max, head.sum};
}

template <int kHeadDim>
__device__ Elements<float, kPerLane<kHeadDim>> LoadPart(const DecodeArguments& args, int64_t slot) {
  const float* const from =
      args.partials + slot * kMaxDecodeHeadDim + threadIdx.x % 32 * kPerLane<kHeadDim>;
  if constexpr (kPerLane<kHeadDim> == 4) {
    const float4 x = __ldcg(reinterpret_cast<const float4*>(from));
    return {x.x, x.y, x.z, x.w};
  } else {
    const float2 x = __ldcg(reinterpret_cast<const float2*>(from));
    return {x.x, x.y};
  }
}

// Merges the parts that blocks `first` to `last` left of a segment, in their order.
template <int kHeadDim>
__device__ HeadSum<kHeadDim> MergeBlocks(const DecodeArguments& args, int first, int last,
                                         int query) {
  constexpr int kAtOnce = 20;  // loads under way
  const int lane = static_cast<int>(threadIdx.x) % 32;
  HeadSum<kHeadDim> head;
  for (int begin = first; begin <= last; begin += kAtOnce) {
    const auto slot = [&](int i) { return PartSlot(begin + i, begin + i == first, query); };
    const int count = min(kAtOnce, last + 1 - begin);
    Elements<float, kPerLane<kHeadDim>> values[kAtOnce] = {};
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (i < count) values[i] = LoadPart<kHeadDim>(args, slot(i));
    }
    const float2 stat =
        lane < count ? __ldcg(&args.partial_stats[slot(lane)]) : float2{-INFINITY, 0};
    const float max = fmaxf(head.max, WarpMax(stat.x));
    const float keep = exp2f(head.max - max), weight = exp2f(stat.x - max);
    head.max = max;
    head.sum = head.sum * keep + WarpSum(weight * stat.y);
#pragma unroll
    for (int j = 0; j < kPerLane<kHeadDim>; ++j) head.value[j] *= keep;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) head.Add(__shfl_sync(~0u, weight, i), values[i]);
  }
  return head;
}

// A segment of several blocks, of which this one has a part.
struct SharedSegment {
  int sequence, head;
  int first_block, last_block;  // the same: there is none
};

// The segment that began in an earlier block (0), or that begins in this one and goes on (1).
__device__ inline SharedSegment FindShared(const DecodeArguments& args, const Line& line,
                                           const Cut& cut, const Share& share, int which) {
  if (share.begin == share.end) return {};
  const Segment segment = line.SegmentAt(args, which == 0 ? share.begin : share.end - 1);
  const bool began = segment.begin < share.begin;
  if (which == 0 ? !began : began || segment.end <= share.end) return {};
  return {segment.sequence, segment.head, cut.BlockOf(segment.begin), cut.BlockOf(segment.end - 1)};
}

// The last block to come merges a shared segment. One thread comes, for a block whose threads have
// met since they stored the part.
__device__ inline bool ArrivesLast(const DecodeArguments& args, const SharedSegment& segment) {
  int& arrivals = args.arrivals[segment.first_block];
  const ::cuda::atomic_ref<int, ::cuda::thread_scope_device> counter(arrivals);
  const int others = segment.last_block - segment.first_block;
  if (counter.fetch_add(1, ::cuda::memory_order_acq_rel) != others) return false;
  arrivals = 0;
  return true;
}

// Once the block has stored its parts: merges those segments of which it is the last to come.
template <int kHeadDim>
__device__ void MergeShared(const DecodeArguments& args, const SharedSegment (&segments)[2]) {
  __shared__ bool merges[2];
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < 2) {
    const SharedSegment& segment = segments[thread];
    merges[thread] = segment.first_block != segment.last_block && ArrivesLast(args, segment);
  }
  __syncthreads();
  for (int i = 0; i < 2; ++i) {
    if (!merges[i]) continue;
    for (int query = thread / 32; query < args.group; query += kWarps) {
      StoreHead(MergeBlocks<kHeadDim>(args, segments[i].first_block, segments[i].last_block, query),
                args, segments[i].sequence, segments[i].head, query);
    }
  }
}

}  // namespace mneme::cuda::decode

#endif  // MNEME_KERNELS_CUDA_ATTENTION_DECODE_MERGE_CUH_
