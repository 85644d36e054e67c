#ifndef MNEME_KERNELS_CUDA_ATTENTION_DECODE_WORK_CUH_
#define MNEME_KERNELS_CUDA_ATTENTION_DECODE_WORK_CUH_

// How decode attention shares its work among blocks.

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/attention_decode.h"
#include "kernels/cuda/step.h"

namespace mneme::cuda::decode {

using BFloat16 = __nv_bfloat16;

// Work is counted in slabs: 16 consecutive tokens of one sequence and KV head. All slabs stand in
// one line (sequence after sequence, in it head after head); block b of B takes the b-th of B equal
// parts. The slabs of one sequence and head are a segment; a block's share of a segment is a piece.
inline constexpr int kSlabTokens = 16;
inline constexpr int kWarps = 4;
inline constexpr int kBlocksPerSm = 2;
inline constexpr int kMaxBlocks = 512;
inline constexpr int kMaxGroup =
    8;  // query heads of a KV head: the columns of a tensor-core product
inline constexpr int kMaxHeadDim = 128;
inline constexpr int kSequencesPerThread = static_cast<int>(kMaxDecodeSequences) / (kWarps * 32);

struct DecodeArguments {
  const StepView* step;
  const BFloat16* qkv;  // of the first sequence's row
  const BFloat16* kv;
  BFloat16* out;          // of the first sequence's row
  float* partials;        // [blocks][2][kMaxGroup][kMaxHeadDim]
  float2* partial_stats;  // [blocks][2][kMaxGroup]: max, sum
  int* arrivals;          // [blocks], of the segment that begins in the block and ends in another
  int64_t page_stride;    // elements
  int64_t qkv_stride, out_stride;
  int64_t window;  // 0: none
  int first_sequence, sequences;
  int kv_heads, group, page_tokens, kv_group;
  float scale_log2;
};

// A sequence's part that its row sees: tokens [first, end), counted from slot 0 of its first page.
struct Span {
  int first = 0;
  int end = 0;
  __device__ int first_slab() const { return first / kSlabTokens; }
  __device__ int slabs() const { return (end + kSlabTokens - 1) / kSlabTokens - first_slab(); }
};

__device__ inline Span SpanOf(const KvGroupView& view, const DecodeArguments& args, int sequence) {
  const int pages = view.page_indptr[sequence + 1] - view.page_indptr[sequence];
  if (pages == 0) return {};
  Span span;
  span.end = (pages - 1) * args.page_tokens + view.last_page_len[sequence];
  if (args.window > 0 && span.end > args.window) {
    span.first = span.end - static_cast<int>(args.window);
  }
  return span;
}

// before[i] = slabs of a head in the sequences before the i-th.
__device__ inline void CountSlabs(const KvGroupView& view, const DecodeArguments& args,
                                  int* before) {
  __shared__ int warp_sums[kWarps];
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  int counts[kSequencesPerThread], sum = 0;
#pragma unroll
  for (int i = 0; i < kSequencesPerThread; ++i) {
    const int s = thread * kSequencesPerThread + i;
    counts[i] = s < args.sequences ? SpanOf(view, args, args.first_sequence + s).slabs() : 0;
    sum += counts[i];
  }
  int up_to_lane = sum;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const int other = __shfl_up_sync(~0u, up_to_lane, offset);
    if (lane >= offset) up_to_lane += other;
  }
  if (lane == 31) warp_sums[thread / 32] = up_to_lane;
  __syncthreads();
  int total = up_to_lane - sum;
  for (int w = 0; w < thread / 32; ++w) total += warp_sums[w];
#pragma unroll
  for (int i = 0; i < kSequencesPerThread; ++i) {
    before[thread * kSequencesPerThread + i] = total;
    total += counts[i];
  }
  if (thread == kWarps * 32 - 1) before[kMaxDecodeSequences] = total;
  __syncthreads();
}

// One block's share of one segment.
struct Piece {
  int sequence;                 // within the launch
  int head;                     // KV head
  int begin, count;             // slabs of the sequence, from its first page's first one on
  int first_block, last_block;  // that share the segment
  Span span;
};

// Blocks that take part: each has one slab at least.
__device__ inline int64_t BusyBlocks(int64_t slabs) {
  return min(static_cast<int64_t>(gridDim.x), slabs);
}

__device__ inline Piece FindPiece(const KvGroupView& view, const DecodeArguments& args,
                                  const int* before, int64_t at, int64_t end) {
  const int64_t heads = args.kv_heads;
  int low = 0, high = args.sequences - 1;  // the last sequence that begins at or before `at`
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (heads * before[middle] <= at) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  Piece piece;
  piece.sequence = low;
  const int64_t slabs = before[low + 1] - before[low];
  const int64_t within = at - heads * before[low];
  piece.head = static_cast<int>(within / slabs);
  const int64_t segment = heads * before[low] + piece.head * slabs;
  piece.count = static_cast<int>(min(end, segment + slabs) - at);
  piece.span = SpanOf(view, args, args.first_sequence + low);
  piece.begin = piece.span.first_slab() + static_cast<int>(at - segment);
  const int64_t all = heads * before[kMaxDecodeSequences], blocks = BusyBlocks(all);
  piece.first_block = static_cast<int>(((segment + 1) * blocks - 1) / all);
  piece.last_block = static_cast<int>(((segment + slabs) * blocks - 1) / all);
  return piece;
}

}  // namespace mneme::cuda::decode

#endif  // MNEME_KERNELS_CUDA_ATTENTION_DECODE_WORK_CUH_
