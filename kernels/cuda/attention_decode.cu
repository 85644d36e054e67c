#include "kernels/cuda/attention_decode.h"

#include <cuda_bf16.h>

#include <algorithm>

#include "kernels/cuda/attention_decode_copies.cuh"
#include "kernels/cuda/attention_decode_merge.cuh"
#include "kernels/cuda/attention_decode_rotate.cuh"
#include "kernels/cuda/attention_decode_work.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/mma.cuh"

namespace mneme::cuda {
namespace decode {
namespace {

constexpr float kLog2E = 1.4426950408889634f;

// Attention of a KV head's query heads over a warp's slabs of a segment.
template <int kHeadDim>
class WarpSums {
 public:
  __device__ WarpSums(const DecodeArguments& args, const Segment& segment)
      : segment_(segment), scale_log2_(args.scale_log2), lane_(static_cast<int>(threadIdx.x) % 32) {
    LoadQueries(args);
  }

  // Adds the slab that begins at `token`: softmax as it goes, the sums rescaled where a larger
  // score comes.
  __device__ void Attend(int token, uint32_t keys) {
    float p[4];
    Score(token, keys, p);
    const uint32_t values = keys + kSlabBytes<kHeadDim> / 2;
    const int row = lane_ % 8 + lane_ / 16 * 8, half = lane_ / 8 % 2;
    uint32_t v[kHeadDim / 16][4];
#pragma unroll
    for (int i = 0; i < kHeadDim / 16; ++i) {
      LoadMatricesTransposed(values + Place<kHeadDim>(row, 2 * i + half), v[i]);
    }
    float keep[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      float max = fmaxf(p[j], p[j + 2]);
#pragma unroll
      for (int offset = 4; offset < 32; offset *= 2) {
        max = fmaxf(max, __shfl_xor_sync(~0u, max, offset));
      }
      max = fmaxf(max, max_[j]);
      keep[j] = exp2f(max_[j] - max);
      max_[j] = max;
      p[j] = exp2f(p[j] - max);
      p[j + 2] = exp2f(p[j + 2] - max);
      sum_[j] = sum_[j] * keep[j] + p[j] + p[j + 2];
    }
    const uint32_t p0 = TransposeMatrix(PackPair(p[0], p[1]));
    const uint32_t p1 = TransposeMatrix(PackPair(p[2], p[3]));
#pragma unroll
    for (int i = 0; i < kHeadDim / 16; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) value_[i][j] *= keep[j % 2];
      MultiplyAdd(value_[i], v[i], p0, p1);
    }
  }

  // Leaves what the warp has in `slot` and `part`.
  __device__ void Store(char* slot, WarpPart* part) {
    SumOverLanes();
    __syncwarp();  // all have left the slot
    auto* const sums = reinterpret_cast<float*>(slot);
    const int head = 2 * (lane_ % 4);
#pragma unroll
    for (int i = 0; i < kHeadDim / 16; ++i) {
      const int d = 16 * i + lane_ / 4;
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        sums[(head + j) * (kHeadDim + 4) + d] = value_[i][j];
        sums[(head + j) * (kHeadDim + 4) + d + 8] = value_[i][j + 2];
      }
    }
    if (lane_ == 0) part->sums = sums;
    if (lane_ >= 4) return;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      part->max[head + j] = max_[j];
      part->sum[head + j] = sum_[j];
    }
  }

 private:
  // Columns of the products are query heads: lane l has head l / 4.
  __device__ void LoadQueries(const DecodeArguments& args) {
    const BFloat16* const q = args.qkv + segment_.sequence * args.qkv_stride +
                              int64_t{segment_.head * args.group + lane_ / 4} * kHeadDim +
                              2 * (lane_ % 4);
    const bool exists = lane_ / 4 < args.group;
#pragma unroll
    for (int i = 0; i < kHeadDim / 16; ++i) {
      q_[i][0] = exists ? *reinterpret_cast<const uint32_t*>(q + 16 * i) : 0;
      q_[i][1] = exists ? *reinterpret_cast<const uint32_t*>(q + 16 * i + 8) : 0;
    }
    if (args.rotation.rope != nullptr) RotateQuery<kHeadDim>(args, segment_.sequence, q_);
  }

  // Scores of the slab's tokens (rows) and the query heads (columns), in units of log2: lane l has
  // rows l / 4 and l / 4 + 8 of columns 2 (l % 4) and the next.
  __device__ void Score(int token, uint32_t keys, float (&score)[4]) const {
    float even[4] = {}, odd[4] = {};
    const int row = lane_ % 16, half = lane_ / 16;
    uint32_t k[kHeadDim / 16][4];
#pragma unroll
    for (int i = 0; i < kHeadDim / 16; ++i)
      LoadMatrices(keys + Place<kHeadDim>(row, 2 * i + half), k[i]);
#pragma unroll
    for (int i = 0; i < kHeadDim / 16; ++i) {
      MultiplyAdd(i % 2 == 0 ? even : odd, k[i], q_[i][0], q_[i][1]);
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int t = token + lane_ / 4 + (j / 2) * 8;
      const bool seen = t >= segment_.span.first && t < segment_.span.end;
      score[j] = seen ? (even[j] + odd[j]) * scale_log2_ : -INFINITY;
    }
  }

  __device__ void SumOverLanes() {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
#pragma unroll
      for (int offset = 4; offset < 32; offset *= 2) {
        sum_[j] += __shfl_xor_sync(~0u, sum_[j], offset);
      }
    }
  }

  const Segment& segment_;
  const float scale_log2_;
  const int lane_;

  uint32_t q_[kHeadDim / 16][2];
  float max_[2] = {-INFINITY, -INFINITY};
  float sum_[2] = {};
  float value_[kHeadDim / 16][4] = {};  // rows are elements of a head, columns query heads
};

// Sequences without tokens are padding.
template <int kHeadDim>
__device__ void ZeroPadding(const DecodeArguments& args, const Line& line) {
  const int width = args.kv_heads * args.group * kHeadDim;
  for (int s = static_cast<int>(blockIdx.x); s < args.sequences; s += static_cast<int>(gridDim.x)) {
    if (line.tokens[s] != 0) continue;
    for (int i = static_cast<int>(threadIdx.x); i < width; i += kWarps * 32) {
      args.out[s * args.out_stride + i] = FromFloat<BFloat16>(0.f);
    }
  }
}

// One block to a multiprocessor, each with an equal share of all keys and values, so that any mix
// of lengths keeps them busy to the end; the last block to finish a segment that blocks share
// merges their parts in the order of the blocks. A warp copies slabs ahead, across segments, and
// multiplies each with all query heads of the KV head at once on the tensor cores (tokens are rows,
// heads columns). Bound by reading the cache; for one short sequence, by latencies that add up.
template <int kHeadDim>
__global__ void __launch_bounds__(kWarps * 32, kBlocksPerSm)
    DecodeKernel(const __grid_constant__ DecodeArguments args) {
  extern __shared__ __align__(128) char shared[];
  __shared__ Line line;
  __shared__ WarpPart parts[kWarps];
  __shared__ SharedSegment segments[2];
  LetNextStart();
  // The step's arrays came by a copy before all of its kernels.
  const KvGroupView view = args.step->groups[args.kv_group];
  const Cut cut = line.Fill(view, args);
  const Share share(args, line, cut);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
  SlabRing<kHeadDim> ring(args, view.pages, line, share, shared + warp * kRingBytes<kHeadDim>);
  if (thread < 2) segments[thread] = FindShared(args, line, cut, share, thread);
  WaitForPrior();
  for (int at = share.begin; at < share.end;) {
    const Segment segment = at == share.begin ? share.first : line.SegmentAt(args, at);
    const int end = min(segment.end, share.end);
    WarpSums<kHeadDim> sums(args, segment);
    while (ring.next() < end) {
      const int token = segment.Token(ring.next()), newest = segment.span.end - 1 - token;
      const uint32_t keys = ring.Take();
      if (args.rotation.rope != nullptr && newest < kSlabTokens) {
        AddNewest<kHeadDim>(args, segment, newest, keys);
        __syncwarp();
      }
      sums.Attend(token, keys);
    }
    sums.Store(ring.free_slot(), &parts[warp]);
    __syncthreads();
    for (int query = warp; query < args.group; query += kWarps) {
      const HeadSum<kHeadDim> head = MergeWarps<kHeadDim>(parts, query);
      if (share.Has(segment)) {
        StoreHead(head, args, segment.sequence, segment.head, query);
      } else {
        const bool begins = segment.begin >= share.begin;
        StorePart(head, args, PartSlot(static_cast<int>(blockIdx.x), begins, query));
      }
    }
    __syncthreads();
    at = end;
  }
  if (share.begin < share.end) MergeShared<kHeadDim>(args, segments);
  ZeroPadding<kHeadDim>(args, line);
}

template <int kHeadDim>
void LaunchDecode(const DecodeArguments& args, const LaunchContext& context) {
  auto* const kernel = DecodeKernel<kHeadDim>;
  context.errors->Check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             kWarps * kRingBytes<kHeadDim>),
                        "cudaFuncSetAttribute");
  const int blocks = std::min(kBlocksPerSm * context.num_sms, kMaxBlocks);
  Launch(context, "decode attention", kernel, dim3(static_cast<unsigned>(blocks)),
         dim3(kWarps * 32), kWarps * kRingBytes<kHeadDim>, args);
}

// Parts of the workspace, one after another.
constexpr int64_t kSlots = int64_t{kMaxBlocks} * 2 * kMaxGroup;
constexpr int64_t kPartialBytes = kSlots * kMaxDecodeHeadDim * int64_t{sizeof(float)};
constexpr int64_t kStatBytes = kSlots * int64_t{sizeof(float2)};
constexpr int64_t kArrivalBytes = kMaxBlocks * int64_t{sizeof(int)};

}  // namespace
}  // namespace decode

int64_t DecodeWorkspaceBytes() {
  return decode::kPartialBytes + decode::kStatBytes + decode::kArrivalBytes;
}

bool IsDecodeShape(const AttentionShape& shape) {
  const QkvShape& heads = shape.heads;
  return shape.kv.dtype == DType::kBF16 && (heads.head_dim == 64 || heads.head_dim == 128) &&
         heads.query_heads % heads.kv_heads == 0 &&
         heads.query_heads / heads.kv_heads <= decode::kMaxGroup &&
         shape.kv.page_tokens % decode::kSlabTokens == 0;
}

void DecodeAttention(const StepView* step, int64_t first_sequence, int64_t sequences,
                     int64_t first_row, Matrix qkv, const DecodeRotation* rotation,
                     const AttentionShape& shape, void* kv_data, Matrix out, void* workspace,
                     const LaunchContext& context) {
  using decode::BFloat16;
  auto* const base = static_cast<char*>(workspace);
  decode::DecodeArguments args = {};
  args.step = step;
  args.kv = static_cast<BFloat16*>(kv_data);
  args.partials = reinterpret_cast<float*>(base);
  args.partial_stats = reinterpret_cast<float2*>(base + decode::kPartialBytes);
  args.arrivals = reinterpret_cast<int*>(base + decode::kPartialBytes + decode::kStatBytes);
  args.page_stride = shape.kv.page_stride_bytes / int64_t{sizeof(BFloat16)};
  args.qkv_stride = qkv.stride;
  args.out_stride = out.stride;
  args.window = shape.window;
  args.kv_heads = static_cast<int>(shape.heads.kv_heads);
  args.group = static_cast<int>(shape.heads.query_heads / shape.heads.kv_heads);
  args.page_tokens = static_cast<int>(shape.kv.page_tokens);
  args.kv_group = shape.kv.group;
  args.scale_log2 = shape.scale * decode::kLog2E;
  for (int64_t at = 0; at < sequences; at += decode::kMaxSequences) {
    const int64_t count = std::min(sequences - at, int64_t{decode::kMaxSequences});
    args.qkv = static_cast<const BFloat16*>(qkv.Rows(first_row + at, count).data);
    args.out = static_cast<BFloat16*>(out.Rows(first_row + at, count).data);
    args.first_sequence = static_cast<int>(first_sequence + at);
    args.first_row = static_cast<int>(first_row + at);
    if (rotation != nullptr) {
      args.rotation = {
          .rope = static_cast<const float*>(rotation->rope.Rows(first_row + at, count).data),
          .rope_stride = rotation->rope.stride,
          .q_weight = static_cast<const float*>(rotation->norm.q_weight),
          .k_weight = static_cast<const float*>(rotation->norm.k_weight),
          .epsilon = rotation->norm.epsilon};
    }
    args.sequences = static_cast<int>(count);
    if (shape.heads.head_dim == 64) {
      decode::LaunchDecode<64>(args, context);
    } else {
      decode::LaunchDecode<128>(args, context);
    }
  }
}

}  // namespace mneme::cuda
