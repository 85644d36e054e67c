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
// one line (sequence after sequence, in it head after head), of which each block takes the next
// equal share. The slabs of one sequence and head are a segment; what a block has of one that other
// blocks share is a part.
inline constexpr int kSlabTokens = 16;
inline constexpr int kWarps = 8;
inline constexpr int kBlocksPerSm = 1;
inline constexpr int kMaxBlocks = 512;
inline constexpr int kMaxSequences = 512;  // of one launch
// Query heads of a KV head: the columns of a tensor-core product.
inline constexpr int kMaxGroup = 8;
inline constexpr int kMaxDecodeHeadDim = 128;

// Of integers that are not negative: cheaper than the division of signed ones.
__device__ inline int Quotient(int a, int b) {
  return static_cast<int>(static_cast<uint32_t>(a) / static_cast<uint32_t>(b));
}

// RotateAndStore, if it is to be done here.
struct Rotation {
  const float* rope = nullptr;  // of the first sequence's row; null: it has been done
  int64_t rope_stride = 0;
  const float *q_weight = nullptr, *k_weight = nullptr;  // null: no norm
  float epsilon = 0;
};

struct DecodeArguments {
  const StepView* step;
  const BFloat16* qkv;  // of the first sequence's row
  BFloat16* kv;
  Rotation rotation;
  BFloat16* out;          // of the first sequence's row
  float* partials;        // [blocks][2][kMaxGroup][kMaxDecodeHeadDim]
  float2* partial_stats;  // [blocks][2][kMaxGroup]: max, sum
  int* arrivals;          // [blocks], of the segment that begins in the block and ends in another
  int64_t page_stride;    // elements
  int64_t qkv_stride, out_stride;
  int64_t window;  // 0: none
  int first_sequence, first_row, sequences;
  int kv_heads, group, page_tokens, kv_group;
  float scale_log2;
};

// A sequence's part that its row sees: tokens [first, end), counted from slot 0 of its first page.
struct Span {
  int first = 0;
  int end = 0;
  Span() = default;
  __device__ Span(const DecodeArguments& args, int tokens) : end(tokens) {
    if (args.window > 0 && end > args.window) first = end - static_cast<int>(args.window);
  }
  __device__ int first_slab() const { return first / kSlabTokens; }
  __device__ int slabs() const { return (end + kSlabTokens - 1) / kSlabTokens - first_slab(); }
};

struct Segment {
  int sequence;    // within the launch
  int head;        // KV head
  int begin, end;  // on the line
  Span span;
  // The first token of a slab.
  __device__ int Token(int position) const {
    return (position - begin + span.first_slab()) * kSlabTokens;
  }
};

// How the line is cut. Where sequences are about as long as the longest one, each segment gets as
// many blocks of its own as there are, so that none begins within a block's share.
struct Cut {
  int slabs;  // a block's share
  int pitch;  // from one segment to the next; 0: each begins where the one before ends
  __device__ Cut(const DecodeArguments& args, int all_slabs, int sequences, int longest)
      : pitch(0) {
    const int blocks = static_cast<int>(gridDim.x), segments = args.kv_heads * sequences;
    // A slab for each warp at least: a block more would cost more to merge than it saves.
    slabs = max(Quotient(args.kv_heads * all_slabs + blocks - 1, blocks), kWarps);
    if (segments == 0 || segments > blocks) return;
    const int own_blocks = Quotient(blocks, segments);
    const int own_slabs = max(Quotient(longest + own_blocks - 1, own_blocks), kWarps);
    if (own_slabs > slabs + slabs / 8) return;
    slabs = own_slabs;
    pitch = own_blocks * own_slabs;
  }
  __device__ int BlockOf(int position) const { return Quotient(position, slabs); }
};

// The line of a launch, in shared memory.
struct Line {
  int before[kMaxSequences + 1];  // of a head in the sequences before: slabs or pitches
  int tokens[kMaxSequences];
  int first_page[kMaxSequences];  // in the list of pages
  int2 warp_sums[kWarps];
  int warp_longest[kWarps];

  // All threads of the block come.
  __device__ Cut Fill(const KvGroupView& view, const DecodeArguments& args) {
    constexpr int kPerThread = kMaxSequences / (kWarps * 32);
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
    int counts[kPerThread], longest = 0;
    int2 sum = {0, 0};  // slabs, sequences that have any
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      const int s = thread * kPerThread + i;
      counts[i] = s < args.sequences ? Measure(view, args, s) : 0;
      sum = {sum.x + counts[i], sum.y + (counts[i] > 0)};
      longest = max(longest, counts[i]);
    }
    int2 total = sum;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
      const int2 other = {__shfl_up_sync(~0u, total.x, offset),
                          __shfl_up_sync(~0u, total.y, offset)};
      if (lane >= offset) total = {total.x + other.x, total.y + other.y};
    }
    if (lane == 31) warp_sums[thread / 32] = total;
    longest = __reduce_max_sync(~0u, longest);
    if (lane == 0) warp_longest[thread / 32] = longest;
    __syncthreads();
    total = {total.x - sum.x, total.y - sum.y};
    int2 all = {0, 0};
    for (int w = 0; w < kWarps; ++w) {
      const int2 other = warp_sums[w];
      if (w < thread / 32) total = {total.x + other.x, total.y + other.y};
      all = {all.x + other.x, all.y + other.y};
      longest = max(longest, warp_longest[w]);
    }
    const Cut cut(args, all.x, all.y, longest);
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      before[thread * kPerThread + i] = cut.pitch > 0 ? total.y * cut.pitch : total.x;
      total = {total.x + counts[i], total.y + (counts[i] > 0)};
    }
    if (thread == 0) before[kMaxSequences] = cut.pitch > 0 ? all.y * cut.pitch : all.x;
    __syncthreads();
    return cut;
  }

  // Notes what concerns a sequence; returns its slabs.
  __device__ int Measure(const KvGroupView& view, const DecodeArguments& args, int sequence) {
    const int s = args.first_sequence + sequence;
    const int page = view.page_indptr[s], pages = view.page_indptr[s + 1] - page;
    const int last_page_len = view.last_page_len[s];
    first_page[sequence] = page;
    tokens[sequence] = pages == 0 ? 0 : (pages - 1) * args.page_tokens + last_page_len;
    return Span(args, tokens[sequence]).slabs();
  }

  __device__ int length(const DecodeArguments& args) const {
    return args.kv_heads * before[kMaxSequences];
  }

  __device__ Segment SegmentAt(const DecodeArguments& args, int position) const {
    int low = 0, high = args.sequences - 1;  // the last sequence that begins there or before
    while (low < high) {
      const int middle = (low + high + 1) / 2;
      if (args.kv_heads * before[middle] <= position) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    const int pitch = before[low + 1] - before[low], first = args.kv_heads * before[low];
    const int head = Quotient(position - first, pitch);
    const int begin = first + head * pitch;
    const Span span(args, tokens[low]);
    return {low, head, begin, begin + span.slabs(), span};
  }
};

// What the block takes of the line.
struct Share {
  int begin, end;
  Segment first;  // that it begins in
  __device__ Share(const DecodeArguments& args, const Line& line, const Cut& cut) {
    const int length = line.length(args);
    begin = min(static_cast<int>(blockIdx.x) * cut.slabs, length);
    end = min(begin + cut.slabs, length);
    if (begin == end) return;
    first = line.SegmentAt(args, begin);
    if (cut.pitch > 0) end = max(begin, min(end, first.end));
  }
  __device__ bool Has(const Segment& segment) const {
    return segment.begin >= begin && segment.end <= end;
  }
};

}  // namespace mneme::cuda::decode

#endif  // MNEME_KERNELS_CUDA_ATTENTION_DECODE_WORK_CUH_
