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
//   the consumers multiply, each the columns of x that it has brought to shared memory for itself,
//          for each segment, a run of the block's units of one group and slice;
//   the storers take turns in adding up the consumers' sums of a tile and storing them. If k is
//   cut,
//          a block leaves its part in global memory and the one that arrives last at a tile adds
//          them in order of slices, so that results do not depend on who was last.

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <utility>

#include "kernels/backend.h"
#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/stream_plan.h"
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
template <typename T, int kMaxGroups, typename Store>
class WeightStream {
 public:
  // `shared`: with plan and groups filled in.
  __device__ WeightStream(StreamShared<T, kMaxGroups>* shared, const StreamArgs& args,
                          const Store& store)
      : shared_(shared),
        args_(args),
        store_(store),
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
      WaitForPrior();
      Consume(warp - kProducers - kStorers);
    }
  }

 private:
  static constexpr int kConsumers = WeightMath<T>::kConsumerWarps;
  static constexpr int kStepBytes = 64, kStepColumns = kStepBytes / static_cast<int>(sizeof(T));

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

  // The beginning of a tile's row within a chunk, in global memory.
  __device__ const char* Source(const Segment& s, int tile, int tile_row, int chunk) const {
    const int64_t row = int64_t{tile} * plan_.tile_rows + tile_row;
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
                     Source(s, tile, row, chunk), bytes, full);
          }
          __syncwarp();
          cursor.Advance(plan_.stages);
        }
      }
    });
  }

  // The consumer's columns of x: of each weight row the consumers take steps of 64 bytes in turn.
  // Zeros in its last step beyond the slice's end.
  __device__ void LoadRows(const Segment& s, int consumer) {
    constexpr int kVectors = kStepColumns / 8;
    const StreamGroup& group = shared_->groups[s.group];
    const int steps = CeilDivide(CeilDivide(s.k_count, kStepColumns) - consumer, kConsumers);
    __syncwarp();
    for (int row = 0; row < group.row_count; ++row) {
      const __nv_bfloat16* x = args_.x + (group.first_row + row) * args_.x_stride + s.first_k;
      const uint32_t to = SharedAddress(x_ + row * plan_.x_row_bytes);
      for (int i = lane_; i < steps * kVectors; i += 32) {
        const int step = consumer + i / kVectors * kConsumers;
        const int column = step * kStepColumns + i % kVectors * 8;
        const bool in = column < s.k_count;
        CopyAsync16(to + static_cast<uint32_t>(column) * 2, x + (in ? column : 0), in);
      }
    }
    CommitCopies();
    WaitForCopies<0>();
    __syncwarp();
  }

  __device__ void Consume(int consumer) {
    RingCursor stages, buffers;
    ForEachSegment([&](const Segment& s) {
      LoadRows(s, consumer);
      const int x_row = min(lane_ / 4, shared_->groups[s.group].row_count - 1);
      for (int tile = s.first_tile; tile < s.first_tile + s.tile_count; ++tile) {
        const int last_row = TileRows(tile) - 1;
        Sums sums[2];
        for (int chunk = 0; chunk < s.chunks(); ++chunk) {
          WaitParity(&shared_->full[stages.stage], stages.parity);
          const char* stage = ring_ + stages.stage * plan_.stage_bytes;
          const char* low = stage + min(lane_ / 4, last_row) * kStageRowBytes;
          const char* high = stage + min(lane_ / 4 + 8, last_row) * kStageRowBytes;
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
    const float values[4] = {sum.x, sum.y, sum.z, sum.w};
    const int rows = TileRows(tile);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = lane_ / 4 + i / 2 * 8, x_row = lane_ % 4 * 2 + i % 2;
      if (row >= rows || x_row >= group.row_count) continue;
      store_(group, tile * plan_.tile_rows + row, x_row, values[i]);
    }
  }

  StreamShared<T, kMaxGroups>* shared_;
  const StreamArgs& args_;
  const Store& store_;
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
