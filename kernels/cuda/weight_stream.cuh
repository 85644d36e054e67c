#ifndef MNEME_KERNELS_CUDA_WEIGHT_STREAM_CUH_
#define MNEME_KERNELS_CUDA_WEIGHT_STREAM_CUH_

// Products of few rows with large weights, bound by reading the weights: SkinnyLinear and
// ApplyDeltas. A launch works on `groups` of weights [n, k], each with at most eight rows of x of
// its own. The work is cut into units, one *tile* of weight rows by one *slice* of k, and every
// block, one a multiprocessor, takes equally many neighbouring units. In a block
//   the producers stream the weights by bulk copies through a ring of stages in shared memory, each
//          some rows of a tile: one warp alone cannot issue copies of this size as fast as the
//          memory delivers. They do not wait for the kernel in front, so the ring is full when that
//          one ends;
//   the consumers multiply, each the columns of x that it has brought to shared memory for itself
//          (stream_rows.cuh), for each segment, a run of the block's units of one group and slice;
//   the storers take turns in adding up the consumers' sums of a tile and storing them. Where k is
//          cut, a block leaves its part in global memory and the one that arrives last at a tile
//          adds them in order of slices, so that results do not depend on who was last.

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <utility>

#include "kernels/backend.h"
#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/row_math.cuh"
#include "kernels/cuda/stream_plan.h"
#include "kernels/cuda/stream_rows.cuh"
#include "kernels/cuda/weight_fragments.cuh"

namespace mneme::cuda {

// The weights of a group and its rows of x.
struct StreamGroup {
  const char* weights;
  int32_t first_row;
  int32_t row_count;
};

// What the groups of a launch share.
struct StreamArgs {
  int32_t n = 0, k = 0;
  const __nv_bfloat16* x = nullptr;
  int64_t x_stride = 0;
  float4* partials = nullptr;    // [unit][lane], if k is cut
  uint32_t* arrivals = nullptr;  // [group, tile], zero between launches
};

// The head of a block's shared memory. After it: x, the ring.
template <typename T, int kMaxGroups>
struct StreamShared {
  static constexpr int kConsumers = WeightMath<T>::kConsumerWarps;

  uint64_t full[kMaxStages], empty[kMaxStages];
  uint64_t sums_full[kStorers], sums_empty[kStorers];
  float4 sums[kStorers][kConsumers][32];  // one buffer for each storer
  float squares[kConsumers][kMaxXRows];   // of x, added up, for a norm
  StreamPlan plan;
  StreamGroup groups[kMaxGroups];
};

template <typename T>
constexpr int StreamThreads() {
  return 32 * (kProducers + kStorers + WeightMath<T>::kConsumerWarps);
}
// Limits registers so that two blocks and the small kernels between them fit a multiprocessor.
template <typename T>
constexpr int StreamMinBlocks() {
  return WeightMath<T>::kConsumerWarps <= 4 ? 3 : 2;
}
template <typename T, int kMaxGroups>
constexpr int StreamHeadBytes() {
  return (static_cast<int>(sizeof(StreamShared<T, kMaxGroups>)) + 127) / 128 * 128;
}

// One block's part of a launch. `Store`: void(group, weight row, row of x within the group, sum).
// If it is kGated, the weights are gates above equally many ups, a tile has the same rows of both,
// so that a thread has both sums, and Store is void(group, row of the gates, row of x, gate, up).
template <typename T, int kMaxGroups, typename Store, typename Norm = NoNorm>
class WeightStream {
 public:
  // `shared`: with plan and groups filled in.
  __device__ WeightStream(StreamShared<T, kMaxGroups>* shared, const StreamArgs& args,
                          const Store& store, const Norm& norm = {})
      : shared_(shared),
        args_(args),
        store_(store),
        norm_(norm),
        plan_(shared->plan),
        lane_(static_cast<int>(threadIdx.x % 32)),
        x_(reinterpret_cast<char*>(shared) + StreamHeadBytes<T, kMaxGroups>()),
        ring_(x_ + plan_.x_bytes) {}

  // All threads of the block.
  __device__ void Run() {
    if (threadIdx.x == 0) InitBarriers();
    __syncthreads();
    const int warp = static_cast<int>(threadIdx.x / 32);
    if (warp < kProducers) {
      StreamWeights(warp);
    } else if (warp < kProducers + kStorers) {
      WaitForPrior();
      StoreSums(warp - kProducers);
    } else {
      Consume(warp - kProducers - kStorers);
    }
  }

 private:
  using Rows = ConsumerRows<T>;
  static constexpr int kConsumers = Rows::kConsumers, kStepBytes = Rows::kStepBytes;
  static_assert(!Norm::kNormed || kMaxGroups == 1);

  // One group and slice; the block's tiles of it.
  struct Segment {
    int group, slice;
    int first_tile, tile_count;
    int first_k, k_count;

    __device__ int bytes() const { return k_count * static_cast<int>(sizeof(T)); }
    __device__ int chunks() const { return (bytes() + kChunkBytes - 1) / kChunkBytes; }
    __device__ int chunk_bytes(int chunk) const {
      return min(kChunkBytes, bytes() - chunk * kChunkBytes);
    }
  };

  __device__ void InitBarriers() {
    for (int i = 0; i < plan_.stages; ++i) {
      InitBarrier(&shared_->full[i], 1);
      InitBarrier(&shared_->empty[i], kConsumers);
    }
    for (int i = 0; i < kStorers; ++i) {
      InitBarrier(&shared_->sums_full[i], kConsumers);
      InitBarrier(&shared_->sums_empty[i], 1);
    }
    FenceBarrierInit();
  }

  template <typename F>
  __device__ void ForEachSegment(const F& f) const {
    const int64_t units = plan_.units();
    int unit = static_cast<int>(units * blockIdx.x / gridDim.x);
    const int last = static_cast<int>(units * (blockIdx.x + 1) / gridDim.x);
    while (unit < last) {
      Segment s;
      s.first_tile = unit % plan_.tiles;
      s.tile_count = min(plan_.tiles - s.first_tile, last - unit);
      s.slice = unit / plan_.tiles % plan_.slices;
      s.group = unit / plan_.tiles / plan_.slices;
      s.first_k = s.slice * plan_.slice_k;
      s.k_count = min(plan_.slice_k, args_.k - s.first_k);
      f(s);
      unit += s.tile_count;
    }
  }

  __device__ int TileRows(int tile) const {
    return min(plan_.tile_rows, args_.n - tile * plan_.tile_rows);
  }

  // The first row of a tile that multiplies as one of the upper eight.
  __device__ static int UpperRow(int rows) { return Store::kGated ? rows / 2 : 8; }
  // The first of a tile's rows, or of its gates.
  __device__ int FirstRow(int tile) const {
    return tile * (Store::kGated ? plan_.tile_rows / 2 : plan_.tile_rows);
  }

  // The beginning of a tile's row within a chunk, in global memory; the tile has `rows`.
  __device__ const char* Source(const Segment& s, int tile, int rows, int tile_row,
                                int chunk) const {
    int64_t row = FirstRow(tile) + tile_row;
    if (Store::kGated && tile_row >= UpperRow(rows)) row += args_.n / 2 - UpperRow(rows);
    return shared_->groups[s.group].weights +
           (row * args_.k + s.first_k) * static_cast<int64_t>(sizeof(T)) + chunk * kChunkBytes;
  }

  // The first producer announces the bytes of all.
  __device__ void StreamWeights(int producer) {
    const int row = producer + lane_ * kProducers;
    RingCursor cursor;
    ForEachSegment([&](const Segment& s) {
      for (int tile = s.first_tile; tile < s.first_tile + s.tile_count; ++tile) {
        const int rows = TileRows(tile);
        for (int chunk = 0; chunk < s.chunks(); ++chunk) {
          const uint32_t bytes = static_cast<uint32_t>(s.chunk_bytes(chunk));
          uint64_t* full = &shared_->full[cursor.stage];
          WaitParity(&shared_->empty[cursor.stage], cursor.parity ^ 1);
          if (producer == 0 && lane_ == 0) {
            ArriveExpecting(full, bytes * static_cast<uint32_t>(rows));
          }
          if (row < rows) {
            CopyOnce(ring_ + cursor.stage * plan_.stage_bytes + row * kStageRowBytes,
                     Source(s, tile, rows, row, chunk), bytes, full);
          }
          __syncwarp();
          cursor.Advance(plan_.stages);
        }
      }
    });
  }

  // The rows of the one segment that a block then has at most. The norm's weights are no kernel's
  // work: they come while the kernel in front ends.
  __device__ void LoadNormed(const Rows& own, float* squares) const {
    const auto weights = own.LoadNormWeights(norm_.weight, args_.k);
    WaitForPrior();
    const int row_count = shared_->groups[0].row_count;
    own.Load(args_.x, args_.x_stride, row_count, args_.k);
    own.Scale(weights, row_count, args_.k, squares);
  }

  __device__ void Consume(int consumer) {
    const Rows own(x_, plan_.x_row_bytes, consumer, lane_);
    if constexpr (Norm::kNormed) {
      LoadNormed(own, shared_->squares[consumer]);
    } else {
      WaitForPrior();
    }
    RingCursor stages, buffers;
    ForEachSegment([&](const Segment& s) {
      const StreamGroup& group = shared_->groups[s.group];
      if constexpr (!Norm::kNormed) {
        own.Load(args_.x + group.first_row * args_.x_stride + s.first_k, args_.x_stride,
                 group.row_count, s.k_count);
      }
      const int x_row = min(lane_ / 4, group.row_count - 1);
      for (int tile = s.first_tile; tile < s.first_tile + s.tile_count; ++tile) {
        const int rows = TileRows(tile), upper = UpperRow(rows);
        Sums sums[2];
        for (int chunk = 0; chunk < s.chunks(); ++chunk) {
          WaitParity(&shared_->full[stages.stage], stages.parity);
          const char* stage = ring_ + stages.stage * plan_.stage_bytes;
          const char* low = stage + min(lane_ / 4, min(upper, rows) - 1) * kStageRowBytes;
          const char* high = stage + min(lane_ / 4 + upper, rows - 1) * kStageRowBytes;
          const auto* x = reinterpret_cast<const __nv_bfloat16*>(x_ + x_row * plan_.x_row_bytes) +
                          chunk * (kChunkBytes / static_cast<int>(sizeof(T)));
          if (s.chunk_bytes(chunk) == kChunkBytes) {
            MultiplyChunk<true>(low, high, x, kChunkBytes, consumer, sums);
          } else {
            MultiplyChunk<false>(low, high, x, s.chunk_bytes(chunk), consumer, sums);
          }
          __syncwarp();
          if (lane_ == 0) Arrive(&shared_->empty[stages.stage]);
          stages.Advance(plan_.stages);
        }
        WaitParity(&shared_->sums_empty[buffers.stage], buffers.parity ^ 1);
        shared_->sums[buffers.stage][consumer][lane_] =
            make_float4(sums[0].sum[0] + sums[1].sum[0], sums[0].sum[1] + sums[1].sum[1],
                        sums[0].sum[2] + sums[1].sum[2], sums[0].sum[3] + sums[1].sum[3]);
        __syncwarp();
        if (lane_ == 0) Arrive(&shared_->sums_full[buffers.stage]);
        buffers.Advance(kStorers);
      }
    });
  }

  // x: from the chunk's first column on.
  template <bool kWhole>
  __device__ void MultiplyChunk(const char* low_row, const char* high_row, const __nv_bfloat16* x,
                                int bytes, int consumer, Sums (&sums)[2]) const {
    constexpr int kSteps = kChunkBytes / kStepBytes / kConsumers;
    uint4 low[kSteps], high[kSteps];
    const int first = consumer * kStepBytes + lane_ % 4 * 16;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const int at = first + step * kConsumers * kStepBytes;
      const bool in = kWhole || at < bytes;
      low[step] = in ? *reinterpret_cast<const uint4*>(low_row + at) : make_uint4(0, 0, 0, 0);
      high[step] = in ? *reinterpret_cast<const uint4*>(high_row + at) : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const int at = first + step * kConsumers * kStepBytes;
      if (!kWhole && at - lane_ % 4 * 16 >= bytes) continue;
      WeightMath<T>::Multiply(low[step], high[step], x + at / static_cast<int>(sizeof(T)), sums);
    }
  }

  __device__ void StoreSums(int storer) {
    uint64_t* const full = &shared_->sums_full[storer];
    float4(&sums)[kConsumers][32] = shared_->sums[storer];
    uint32_t parity = 0;
    int turn = 0;
    ForEachSegment([&](const Segment& s) {
      for (int tile = s.first_tile; tile < s.first_tile + s.tile_count; ++tile) {
        if (turn++ % kStorers != storer) continue;
        WaitParity(full, parity);
        parity ^= 1;
        float4 sum = sums[0][lane_];
        for (int i = 1; i < kConsumers; ++i) Add(sum, sums[i][lane_]);
        __syncwarp();
        if (lane_ == 0) Arrive(&shared_->sums_empty[storer]);
        if (plan_.slices == 1 || AddSlices(s, tile, sum)) StoreTile(s.group, tile, sum);
      }
    });
  }

  __device__ static void Add(float4& sum, const float4& other) {
    sum.x += other.x;
    sum.y += other.y;
    sum.z += other.z;
    sum.w += other.w;
  }

  // Leaves this slice's sums; true in the block that was last, with the sums of all slices.
  __device__ bool AddSlices(const Segment& s, int tile, float4& sum) const {
    const int64_t cell = int64_t{s.group} * plan_.tiles + tile;
    float4* partials = args_.partials + cell * plan_.slices * 32 + lane_;
    __stcg(partials + s.slice * 32, sum);
    __threadfence();
    __syncwarp();
    uint32_t before = 0;
    if (lane_ == 0) before = atomicAdd(args_.arrivals + cell, 1u);
    before = __shfl_sync(~0u, before, 0);
    if (before + 1 < static_cast<uint32_t>(plan_.slices)) return false;
    __threadfence();
    sum = __ldcg(partials);
    for (int i = 1; i < plan_.slices; ++i) Add(sum, __ldcg(partials + i * 32));
    if (lane_ == 0) args_.arrivals[cell] = 0;
    return true;
  }

  __device__ void StoreTile(int group_index, int tile, const float4& sum) const {
    const StreamGroup& group = shared_->groups[group_index];
    const float lower[2] = {sum.x, sum.y}, upper[2] = {sum.z, sum.w};
    const int rows = TileRows(tile), row = lane_ / 4, out_row = FirstRow(tile) + row;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int x_row = lane_ % 4 * 2 + i;
      if (x_row >= group.row_count) continue;
      const float factor = RowFactor(x_row);
      if constexpr (Store::kGated) {
        if (row < rows / 2) store_(group, out_row, x_row, lower[i] * factor, upper[i] * factor);
      } else {
        if (row < rows) store_(group, out_row, x_row, lower[i] * factor);
        if (row + 8 < rows) store_(group, out_row + 8, x_row, upper[i] * factor);
      }
    }
  }

  // What is left of the norm of a row.
  __device__ float RowFactor(int x_row) const {
    if constexpr (Norm::kNormed) {
      float sum = 0;
      for (int i = 0; i < kConsumers; ++i) sum += shared_->squares[i][x_row];
      return InverseRms(sum, args_.k, norm_.epsilon);
    } else {
      return 1;
    }
  }

  StreamShared<T, kMaxGroups>* shared_;
  const StreamArgs& args_;
  const Store& store_;
  const Norm norm_;
  const StreamPlan plan_;
  const int lane_;
  char* const x_;
  char* const ring_;
};

// Arguments of a launch on `x` with the workspace's parts.
inline StreamArgs MakeStreamArgs(int64_t n, const Matrix& x, void* workspace) {
  StreamArgs args;
  args.n = static_cast<int32_t>(n);
  args.k = static_cast<int32_t>(x.cols);
  args.x = static_cast<const __nv_bfloat16*>(x.data);
  args.x_stride = x.stride;
  args.arrivals = static_cast<uint32_t*>(workspace);
  args.partials = reinterpret_cast<float4*>(static_cast<char*>(workspace) + kStreamArrivalBytes);
  return args;
}

// Whether bulk copies can bring the rows of `x` to shared memory.
inline bool CanStreamRows(const Matrix& x) {
  return x.dtype == DType::kBF16 && x.cols % 8 == 0 && x.cols <= INT32_MAX / 2 &&
         reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && (x.rows == 1 || x.stride % 8 == 0);
}

// Launches one block a multiprocessor, with as much shared memory as a plan counts on.
template <typename T, auto kKernel, typename... Args>
void LaunchStream(const LaunchContext& context, const char* name, Args&&... args) {
  // Once for each kernel: an attribute of the function.
  static const cudaError_t allowed = [] {
    const cudaError_t error = cudaFuncSetAttribute(
        kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kStreamSharedBytes);
    if (error != cudaSuccess) return error;
    return cudaFuncSetAttribute(kKernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                cudaSharedmemCarveoutMaxShared);
  }();
  context.errors->Check(allowed, name);
  Launch(context, name, kKernel, dim3(static_cast<unsigned>(context.num_sms)),
         dim3(StreamThreads<T>()), kStreamSharedBytes, std::forward<Args>(args)...);
}

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_WEIGHT_STREAM_CUH_
