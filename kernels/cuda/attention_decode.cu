#include "kernels/cuda/attention_decode.h"

#include <cuda_bf16.h>

#include <algorithm>

#include "kernels/cuda/attention_decode_merge.cuh"
#include "kernels/cuda/attention_decode_work.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/mma.cuh"

namespace mneme::cuda {
namespace decode {
namespace {

constexpr float kLog2E = 1.4426950408889634f;

// The slabs that a warp has ready or under way.
template <int kHeadDim>
constexpr int kStages = kHeadDim == 64 ? 6 : 3;
// A slab in shared memory: keys [16, kHeadDim], then values. 16-byte pieces of a row are permuted
// by the row's number, so that neither copies nor matrix loads meet in a bank.
template <int kHeadDim>
constexpr int kSlabBytes = 2 * kSlabTokens* kHeadDim* static_cast<int>(sizeof(BFloat16));
template <int kHeadDim>
constexpr int kSharedBytes = kWarps* kStages<kHeadDim>* kSlabBytes<kHeadDim>;

// A warp's part of a piece: every kWarps-th slab.
template <int kHeadDim>
class WarpPiece {
 public:
  __device__ WarpPiece(const KvGroupView& view, const DecodeArguments& args, const Piece& piece,
                       char* shared, bool* waited)
      : args_(args),
        piece_(piece),
        pages_(view.pages + view.page_indptr[args.first_sequence + piece.sequence]),
        kv_(args.kv + int64_t{piece.head} * kHeadDim),
        shared_(SharedAddress(shared)),
        lane_(static_cast<int>(threadIdx.x) % 32),
        next_(static_cast<int>(threadIdx.x) / 32),
        page_(LookUp(next_)) {
    // Older tokens were stored in earlier steps, so their copies need not wait for the kernel in
    // front, which stores the newest.
    for (int stage = 0; stage < kStages<kHeadDim> - 1; ++stage) StartNext(stage, waited);
    if (!*waited) WaitForPrior();
    *waited = true;
    LoadQueries();
    int stage = 0;
    for (int slab = static_cast<int>(threadIdx.x) / 32; slab < piece.count; slab += kWarps) {
      WaitForCopies<kStages<kHeadDim> - 2>();
      __syncwarp();  // all lanes' copies are there, and all have read the slab before
      StartNext(stage == 0 ? kStages<kHeadDim> - 1 : stage - 1, waited);
      Attend(piece.begin + slab, StageAddress(stage));
      stage = stage + 1 == kStages<kHeadDim> ? 0 : stage + 1;
    }
    WaitForCopies<0>();
    __syncwarp();
    SumOverLanes();
  }

  // Puts [kMaxGroup][kHeadDim + 4] weighted sums to `sums`, and their stats.
  __device__ void Store(float* sums, float2* stats) const {
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
    if (lane_ < 4) {
      stats[head] = {max_[0], sum_[0]};
      stats[head + 1] = {max_[1], sum_[1]};
    }
  }

 private:
  static constexpr int kChunks = kHeadDim / 8;  // of 16 bytes in a row

  __device__ int LookUp(int slab) const {
    if (slab >= piece_.count) return 0;
    return pages_[(piece_.begin + slab) * kSlabTokens / args_.page_tokens];
  }
  __device__ uint32_t StageAddress(int stage) const {
    return shared_ + static_cast<uint32_t>(stage * kSlabBytes<kHeadDim>);
  }
  __device__ static uint32_t Place(int row, int chunk) {
    return static_cast<uint32_t>((row * kChunks + (chunk ^ (row % 8))) * 16);
  }

  // Starts the copies of the warp's next slab, and finds the page of the one after it. A group of
  // copies is committed in any case, so that their number tells the slab.
  __device__ void StartNext(int stage, bool* waited) {
    if (next_ < piece_.count) {
      const int token = (piece_.begin + next_) * kSlabTokens;
      if (!*waited && token + kSlabTokens >= piece_.span.end) {
        WaitForPrior();
        *waited = true;
      }
      const int64_t token_stride = int64_t{args_.kv_heads} * kHeadDim;
      const BFloat16* const keys =
          kv_ + page_ * args_.page_stride + token % args_.page_tokens * token_stride;
      const int64_t values = args_.page_tokens * token_stride;
      const int chunk = lane_ % kChunks;
#pragma unroll
      for (int i = 0; i < kSlabTokens * kChunks / 32; ++i) {
        const int row = i * (32 / kChunks) + lane_ / kChunks;
        const bool valid = token + row >= piece_.span.first && token + row < piece_.span.end;
        const BFloat16* const key = keys + (valid ? row * token_stride : 0) + chunk * 8;
        const uint32_t to = StageAddress(stage) + Place(row, chunk);
        CopyAsync16(to, key, valid);
        CopyAsync16(to + kSlabBytes<kHeadDim> / 2, key + values, valid);
      }
      next_ += kWarps;
      page_ = LookUp(next_);
    }
    CommitCopies();
  }

  // Columns of the products are query heads: lane l has head l / 4.
  __device__ void LoadQueries() {
    const BFloat16* const q = args_.qkv + piece_.sequence * args_.qkv_stride +
                              int64_t{piece_.head * args_.group + lane_ / 4} * kHeadDim +
                              2 * (lane_ % 4);
    const bool exists = lane_ / 4 < args_.group;
#pragma unroll
    for (int i = 0; i < kHeadDim / 16; ++i) {
      q_[i][0] = exists ? *reinterpret_cast<const uint32_t*>(q + 16 * i) : 0;
      q_[i][1] = exists ? *reinterpret_cast<const uint32_t*>(q + 16 * i + 8) : 0;
    }
  }

  // Scores of the slab's tokens (rows) and the query heads (columns), in units of log2: lane l has
  // rows l / 4 and l / 4 + 8 of columns 2 (l % 4) and the next.
  __device__ void Score(int slab, uint32_t keys, float (&score)[4]) const {
    float even[4] = {}, odd[4] = {};
    const int row = lane_ % 16, half = lane_ / 16;
    uint32_t k[kHeadDim / 16][4];
#pragma unroll
    for (int i = 0; i < kHeadDim / 16; ++i) LoadMatrices(keys + Place(row, 2 * i + half), k[i]);
#pragma unroll
    for (int i = 0; i < kHeadDim / 16; ++i) {
      MultiplyAdd(i % 2 == 0 ? even : odd, k[i], q_[i][0], q_[i][1]);
    }
    const int token = slab * kSlabTokens + lane_ / 4;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int t = token + (j / 2) * 8;
      const bool seen = t >= piece_.span.first && t < piece_.span.end;
      score[j] = seen ? (even[j] + odd[j]) * args_.scale_log2 : -INFINITY;
    }
  }

  // Adds a slab: softmax as it goes, the sums rescaled where a larger score comes.
  __device__ void Attend(int slab, uint32_t keys) {
    float p[4];
    Score(slab, keys, p);
    const uint32_t values = keys + kSlabBytes<kHeadDim> / 2;
    const int row = lane_ % 8 + lane_ / 16 * 8, half = lane_ / 8 % 2;
    uint32_t v[kHeadDim / 16][4];
#pragma unroll
    for (int i = 0; i < kHeadDim / 16; ++i) {
      LoadMatricesTransposed(values + Place(row, 2 * i + half), v[i]);
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

  __device__ void SumOverLanes() {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
#pragma unroll
      for (int offset = 4; offset < 32; offset *= 2) {
        sum_[j] += __shfl_xor_sync(~0u, sum_[j], offset);
      }
    }
  }

  const DecodeArguments& args_;
  const Piece& piece_;
  const int32_t* const pages_;
  const BFloat16* const kv_;
  const uint32_t shared_;
  const int lane_;
  int next_;  // slab of the piece whose copy is started next
  int page_;  // that it lies in

  uint32_t q_[kHeadDim / 16][2];
  float max_[2] = {-INFINITY, -INFINITY};
  float sum_[2] = {};
  float value_[kHeadDim / 16][4] = {};  // rows are elements of a head, columns query heads
};

// The block's warps become one result, which is the segment's, or a part of it.
template <int kHeadDim>
__device__ void FinishPiece(const DecodeArguments& args, const Piece& piece, const char* shared,
                            const float2 (&stats)[kWarps][kMaxGroup]) {
  const bool whole = piece.first_block == piece.last_block;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  for (int query = warp; query < args.group; query += kWarps) {
    HeadSum<kHeadDim> head;
    for (int w = 0; w < kWarps; ++w) head.max = fmaxf(head.max, stats[w][query].x);
    for (int w = 0; w < kWarps; ++w) {
      const auto* const sums =
          reinterpret_cast<const float*>(shared + w * kStages<kHeadDim> * kSlabBytes<kHeadDim>);
      const float weight = exp2f(stats[w][query].x - head.max);
      head.sum += weight * stats[w][query].y;
#pragma unroll
      for (int j = 0; j < HeadSum<kHeadDim>::kPerLane; ++j) {
        head.value[j] +=
            weight *
            sums[query * (kHeadDim + 4) + threadIdx.x % 32 * HeadSum<kHeadDim>::kPerLane + j];
      }
    }
    if (whole) {
      StoreHead(head, args, piece, query);
    } else {
      StorePartial(head, args, piece, query);
    }
  }
  if (whole || !ArriveLast(args, piece)) return;
  for (int query = warp; query < args.group; query += kWarps) {
    const auto slot = [&](int i) { return PartialSlot(piece, piece.first_block + i, query); };
    StoreHead(MergeParts<kHeadDim>(
                  piece.last_block - piece.first_block + 1,
                  [&](int i) { return args.partials + slot(i) * kMaxHeadDim; },
                  [&](int i) { return __ldcg(&args.partial_stats[slot(i)]); }),
              args, piece, query);
  }
}

// Sequences without tokens are padding.
template <int kHeadDim>
__device__ void ZeroPadding(const DecodeArguments& args, const int* before) {
  const int width = args.kv_heads * args.group * kHeadDim;
  for (int s = static_cast<int>(blockIdx.x); s < args.sequences; s += static_cast<int>(gridDim.x)) {
    if (before[s] != before[s + 1]) continue;
    for (int i = static_cast<int>(threadIdx.x); i < width; i += kWarps * 32) {
      args.out[s * args.out_stride + i] = FromFloat<BFloat16>(0.f);
    }
  }
}

// Two blocks to a multiprocessor, each with an equal share of all keys and values, so that any mix
// of lengths keeps them busy to the end; the last block to finish a segment merges its pieces in
// their order. A warp copies 16 tokens ahead of 16 and multiplies them with all query heads of the
// KV head at once on the tensor cores (tokens are rows, heads columns). Bound by reading the cache.
template <int kHeadDim>
__global__ void __launch_bounds__(kWarps * 32, kBlocksPerSm)
    DecodeKernel(const __grid_constant__ DecodeArguments args) {
  extern __shared__ __align__(128) char shared[];
  __shared__ int before[kMaxDecodeSequences + 1];
  __shared__ float2 stats[kWarps][kMaxGroup];
  LetNextStart();
  // The step's arrays came by a copy before all of its kernels.
  const KvGroupView view = args.step->groups[args.kv_group];
  CountSlabs(view, args, before);
  const int64_t all = int64_t{args.kv_heads} * before[kMaxDecodeSequences];
  const int64_t blocks = BusyBlocks(all), block = blockIdx.x;
  const int64_t end = block < blocks ? all * (block + 1) / blocks : 0;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  char* const stages = shared + warp * kStages<kHeadDim> * kSlabBytes<kHeadDim>;
  bool waited = false;
  for (int64_t at = block < blocks ? all * block / blocks : 0; at < end;) {
    const Piece piece = FindPiece(view, args, before, at, end);
    const WarpPiece<kHeadDim> part(view, args, piece, stages, &waited);
    part.Store(reinterpret_cast<float*>(stages), stats[warp]);
    __syncthreads();
    FinishPiece<kHeadDim>(args, piece, shared, stats);
    __syncthreads();
    at += piece.count;
  }
  if (!waited) WaitForPrior();
  ZeroPadding<kHeadDim>(args, before);
}

template <int kHeadDim>
void LaunchDecode(const DecodeArguments& args, const LaunchContext& context) {
  auto* const kernel = DecodeKernel<kHeadDim>;
  context.errors->Check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             kSharedBytes<kHeadDim>),
                        "cudaFuncSetAttribute");
  const int blocks = std::min(kBlocksPerSm * context.num_sms, kMaxBlocks);
  Launch(context, "decode attention", kernel, dim3(static_cast<unsigned>(blocks)),
         dim3(kWarps * 32), kSharedBytes<kHeadDim>, args);
}

// Parts of the workspace, one after another.
constexpr int64_t kSlots = int64_t{kMaxBlocks} * 2 * kMaxGroup;
constexpr int64_t kPartialBytes = kSlots * kMaxHeadDim * int64_t{sizeof(float)};
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
                     int64_t first_row, Matrix qkv, const AttentionShape& shape,
                     const void* kv_data, Matrix out, void* workspace,
                     const LaunchContext& context) {
  using decode::BFloat16;
  using decode::kPartialBytes;
  auto* const base = static_cast<char*>(workspace);
  decode::DecodeArguments args = {};
  args.step = step;
  args.qkv = static_cast<const BFloat16*>(qkv.Rows(first_row, sequences).data);
  args.kv = static_cast<const BFloat16*>(kv_data);
  args.out = static_cast<BFloat16*>(out.Rows(first_row, sequences).data);
  args.partials = reinterpret_cast<float*>(base);
  args.partial_stats = reinterpret_cast<float2*>(base + kPartialBytes);
  args.arrivals = reinterpret_cast<int*>(base + kPartialBytes + decode::kStatBytes);
  args.page_stride = shape.kv.page_stride_bytes / int64_t{sizeof(BFloat16)};
  args.qkv_stride = qkv.stride;
  args.out_stride = out.stride;
  args.window = shape.window;
  args.first_sequence = static_cast<int>(first_sequence);
  args.sequences = static_cast<int>(sequences);
  args.kv_heads = static_cast<int>(shape.heads.kv_heads);
  args.group = static_cast<int>(shape.heads.query_heads / shape.heads.kv_heads);
  args.page_tokens = static_cast<int>(shape.kv.page_tokens);
  args.kv_group = shape.kv.group;
  args.scale_log2 = shape.scale * decode::kLog2E;
  if (shape.heads.head_dim == 64) {
    decode::LaunchDecode<64>(args, context);
  } else {
    decode::LaunchDecode<128>(args, context);
  }
}

}  // namespace mneme::cuda
