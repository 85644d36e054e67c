#ifndef MNEME_KERNELS_CUDA_WEIGHT_STREAM_CUH_
#define MNEME_KERNELS_CUDA_WEIGHT_STREAM_CUH_

// Products of few rows with large weights, bound by reading the weights: by one weight
// (skinny_product.cu) or by each session's ΔW (delta_apply.cu). A launch works on `groups` of
// weights [n, k], each with at most eight rows of x of its own. The work is cut into units, one
// *tile* of weight rows by one *slice* of k, and every block, one a multiprocessor, takes equally
// many neighbouring units. In a block
//   the producers stream the weights by bulk copies through a ring of stages in shared memory, each
//          some rows of a tile: one warp alone cannot issue copies of this size as fast as the
//          memory delivers. They do not wait for the kernel in front, so the ring is filling when
//          that one ends;
//   the consumers multiply, each the columns of x that it has brought to shared memory for itself
//          (stream_rows.cuh), for each segment, a run of the block's units of one group and slice;
//   the storers take turns in adding up the consumers' sums of a tile and storing them. Where k is
//          cut, a block leaves its part in global memory and the one that arrives last at a tile
//          adds them in order of slices, so that results do not depend on who was last.

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/row_math.cuh"
#include "kernels/cuda/stream_plan.h"
#include "kernels/cuda/stream_rows.cuh"
#include "kernels/cuda/stream_work.cuh"
#include "kernels/cuda/weight_fragments.cuh"

namespace mneme::cuda {

// One block's part of a launch. Where Out is not kFused, norms and gates cost nothing.
template <typename T, typename Out>
class WeightStream {
 public:
  using Work = StreamWork<Out>;

  // All threads of the block, which meet. `memory`: of the block behind `shared`.
  __device__ WeightStream(StreamShared* shared, char* memory, const StreamRing& ring)
      : shared_(shared),
        ring_(ring),
        x_(memory),
        stages_(memory + ring.x_bytes),
        warp_(static_cast<int>(threadIdx.x / 32)),
        lane_(static_cast<int>(threadIdx.x % 32)) {
    if (threadIdx.x == 0) InitBarriers();
    __syncthreads();
  }

  __device__ void Run(const Work& work) {
    if (warp_ < kProducers) {
      Produce(work);
    } else if (warp_ < kProducers + kStorers) {
      WaitForPrior();
      StoreNormed(work);
      Store(work);
    } else {
      Consume(work);
    }
  }

 private:
  using Rows = ConsumerRows<T>;
  static constexpr int kStepBytes = Rows::kStepBytes;

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

  // Every lane arrives for what it has read or written itself: as fast as one lane for its warp
  // behind a __syncwarp, and an order that compute-sanitizer can follow.
  __device__ void InitBarriers() {
    constexpr int kConsumerThreads = 32 * kConsumers;
    for (int i = 0; i < ring_.stages; ++i) {
      InitBarrier(&shared_->full[i], 1);
      InitBarrier(&shared_->empty[i], kConsumerThreads);
    }
    for (int i = 0; i < kStorers; ++i) {
      InitBarrier(&shared_->sums_full[i], kConsumerThreads);
      InitBarrier(&shared_->sums_empty[i], 32);
    }
    InitBarrier(&shared_->squares_full, kConsumers);
    FenceBarrierInit();
  }

  template <typename F>
  __device__ static void ForEachSegment(const Work& work, const F& f) {
    const StreamPlan& plan = work.plan;
    const int64_t units = plan.units();
    int unit = static_cast<int>(units * blockIdx.x / gridDim.x);
    const int last = static_cast<int>(units * (blockIdx.x + 1) / gridDim.x);
    while (unit < last) {
      Segment s;
      s.first_tile = unit % plan.tiles;
      s.tile_count = min(plan.tiles - s.first_tile, last - unit);
      s.slice = unit / plan.tiles % plan.slices;
      s.group = unit / plan.tiles / plan.slices;
      s.first_k = s.slice * plan.slice_k;
      s.k_count = min(plan.slice_k, work.args.k - s.first_k);
      f(s);
      unit += s.tile_count;
    }
  }

  template <typename F>
  __device__ static void ForEachTile(const Work& work, const F& f) {
    ForEachSegment(work, [&](const Segment& s) {
      for (int tile = s.first_tile; tile < s.first_tile + s.tile_count; ++tile) f(s, tile);
    });
  }

  __device__ static bool Gated(const Work& work) {
    if constexpr (Out::kFused) {
      return work.out.gated();
    } else {
      return false;
    }
  }
  __device__ static int TileRows(const Work& work, int tile) {
    return min(work.plan.tile_rows, work.args.n - tile * work.plan.tile_rows);
  }
  // The first row of a tile that multiplies as one of the upper eight.
  __device__ static int UpperRow(const Work& work, int rows) { return Gated(work) ? rows / 2 : 8; }
  // The first of a tile's rows, or of its gates.
  __device__ static int FirstRow(const Work& work, int tile) {
    return tile * (Gated(work) ? work.plan.tile_rows / 2 : work.plan.tile_rows);
  }

  // The beginning of a tile's row within a chunk, in global memory; the tile has `rows`.
  __device__ static const char* Source(const Work& work, const Segment& s, int tile, int rows,
                                       int tile_row, int chunk) {
    int64_t row = FirstRow(work, tile) + tile_row;
    const int upper = UpperRow(work, rows);
    if (Gated(work) && tile_row >= upper) row += work.args.n / 2 - upper;
    return work.groups[s.group].weights +
           (row * work.args.k + s.first_k) * static_cast<int64_t>(sizeof(T)) + chunk * kChunkBytes;
  }

  // The first producer announces the bytes of all.
  __device__ void Produce(const Work& work) {
    const int row = warp_ + lane_ * kProducers;
    ForEachTile(work, [&](const Segment& s, int tile) {
      const int rows = TileRows(work, tile);
      for (int chunk = 0; chunk < s.chunks(); ++chunk) {
        const uint32_t bytes = static_cast<uint32_t>(s.chunk_bytes(chunk));
        WaitForTurn();
        uint64_t* const full = &shared_->full[cursor_.stage];
        if (warp_ == 0 && lane_ == 0) {
          ArriveExpecting(full, bytes * static_cast<uint32_t>(rows));
        }
        if (row < rows) {
          CopyOnce(stages_ + cursor_.stage * ring_.stage_bytes + row * kStageRowBytes,
                   Source(work, s, tile, rows, row, chunk), bytes, full);
        }
        __syncwarp();
        cursor_.Advance(ring_.stages);
      }
    });
  }

  __device__ void Consume(const Work& work) {
    const int consumer = warp_ - kProducers - kStorers;
    const Rows own(x_, work.plan.x_row_bytes, consumer, lane_);
    const bool normed = LoadNormed(work, own, consumer);
    ForEachSegment(work, [&](const Segment& s) {
      const StreamGroup& group = work.groups[s.group];
      if (!normed) {
        own.Load(work.args.x + group.first_row * work.args.x_stride + s.first_k, work.args.x_stride,
                 group.row_count, s.k_count);
      }
      const int x_row = min(lane_ / 4, group.row_count - 1);
      const char* const x = x_ + x_row * work.plan.x_row_bytes;
      for (int tile = s.first_tile; tile < s.first_tile + s.tile_count; ++tile) {
        MultiplyTile(work, s, tile, consumer, reinterpret_cast<const __nv_bfloat16*>(x));
      }
    });
  }

  __device__ void Store(const Work& work) {
    const int storer = warp_ - kProducers;
    float4(&sums)[kConsumers][32] = shared_->sums[storer];
    ForEachTile(work, [&](const Segment& s, int tile) {
      const bool mine = cursor_.stage == storer;
      if (mine) {
        DoAside(work);
        WaitParity(&shared_->sums_full[storer], cursor_.parity);
        float4 sum = sums[0][lane_];
        for (int i = 1; i < kConsumers; ++i) Add(sum, sums[i][lane_]);
        Arrive(&shared_->sums_empty[storer]);
        if (work.plan.slices == 1 || AddSlices(work, s, tile, sum)) StoreTile(work, s, tile, sum);
      }
      cursor_.Advance(kStorers);
    });
    while (DoAside(work)) {
    }
  }

  // A storer's thread among those of all blocks.
  __device__ int StorerThread() const {
    return (blockIdx.x * kStorers + warp_ - kProducers) * 32 + lane_;
  }
  __device__ static int StorerThreads() { return gridDim.x * kStorers * 32; }

  // The thread's next part of what the launch does besides; a part a tile, so that sums do not wait
  // for it, and the rest at the end.
  __device__ bool DoAside(const Work& work) {
    if constexpr (Out::kHasAside) {
      if (!work.out.Aside(StorerThread() + StorerThreads() * asides_)) return false;
      ++asides_;
      return true;
    }
    return false;
  }

  // Stores the normalised rows, if they are wanted: all blocks have them, each stores some.
  __device__ void StoreNormed(const Work& work) const {
    if constexpr (Out::kFused) {
      const StreamNorm norm = work.out.norm();
      if (norm.rows == nullptr) return;
      WaitParity(&shared_->squares_full, 0);
      const int row_vectors = work.args.k / 8;
      for (int i = StorerThread(); i < work.groups[0].row_count * row_vectors;
           i += StorerThreads()) {
        const int row = i / row_vectors, column = i % row_vectors * 8;
        StoreNormedVector(work.args.x + row * work.args.x_stride + column, norm.weight + column,
                          RowFactor(work, row), norm.rows + row * norm.rows_stride + column);
      }
    }
  }

  // Until the next stage is free, and not too many are under way.
  __device__ void WaitForTurn() {
    WaitParity(&shared_->empty[cursor_.stage], cursor_.parity ^ 1);
    if (started_ == ring_.under_way) {
      WaitParity(&shared_->full[landed_.stage], landed_.parity);
      landed_.Advance(ring_.stages);
    } else {
      ++started_;
    }
  }

  // Waits for x; brings and normalises the rows, of the one segment that a block then has, if there
  // is a norm. The norm's weights are no kernel's work: they come before.
  __device__ bool LoadNormed(const Work& work, const Rows& own, int consumer) {
    if constexpr (Out::kFused) {
      if (const StreamNorm norm = work.out.norm(); norm.weight != nullptr) {
        const auto weights = own.LoadNormWeights(norm.weight, work.args.k);
        WaitForPrior();
        const int row_count = work.groups[0].row_count;
        own.Load(work.args.x, work.args.x_stride, row_count, work.args.k);
        own.Scale(weights, row_count, work.args.k, shared_->squares[consumer]);
        if (lane_ == 0) Arrive(&shared_->squares_full);
        return true;
      }
    }
    WaitForPrior();
    return false;
  }

  // x: the lane's row of the slice.
  __device__ void MultiplyTile(const Work& work, const Segment& s, int tile, int consumer,
                               const __nv_bfloat16* x) {
    const int rows = TileRows(work, tile), upper = UpperRow(work, rows);
    const int low_row = min(lane_ / 4, min(upper, rows) - 1) * kStageRowBytes;
    const int high_row = min(lane_ / 4 + upper, rows - 1) * kStageRowBytes;
    Sums sums[2];
    for (int chunk = 0; chunk < s.chunks(); ++chunk) {
      WaitParity(&shared_->full[cursor_.stage], cursor_.parity);
      const char* const stage = stages_ + cursor_.stage * ring_.stage_bytes;
      if (s.chunk_bytes(chunk) == kChunkBytes) {
        MultiplyChunk<true>(stage + low_row, stage + high_row, x, kChunkBytes, consumer, sums);
      } else {
        MultiplyChunk<false>(stage + low_row, stage + high_row, x, s.chunk_bytes(chunk), consumer,
                             sums);
      }
      Arrive(&shared_->empty[cursor_.stage]);
      cursor_.Advance(ring_.stages);
      x += kChunkBytes / static_cast<int>(sizeof(T));
    }
    WaitParity(&shared_->sums_empty[sums_cursor_.stage], sums_cursor_.parity ^ 1);
    shared_->sums[sums_cursor_.stage][consumer][lane_] =
        make_float4(sums[0].sum[0] + sums[1].sum[0], sums[0].sum[1] + sums[1].sum[1],
                    sums[0].sum[2] + sums[1].sum[2], sums[0].sum[3] + sums[1].sum[3]);
    Arrive(&shared_->sums_full[sums_cursor_.stage]);
    sums_cursor_.Advance(kStorers);
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

  __device__ static void Add(float4& sum, const float4& other) {
    sum.x += other.x;
    sum.y += other.y;
    sum.z += other.z;
    sum.w += other.w;
  }

  // Leaves this slice's sums; true in the block that was last, with the sums of all slices.
  __device__ bool AddSlices(const Work& work, const Segment& s, int tile, float4& sum) const {
    const int slices = work.plan.slices;
    const int64_t cell = int64_t{s.group} * work.plan.tiles + tile;
    float4* partials = work.args.partials + cell * slices * 32 + lane_;
    __stcg(partials + s.slice * 32, sum);
    __threadfence();
    __syncwarp();
    uint32_t before = 0;
    if (lane_ == 0) before = atomicAdd(work.args.arrivals + cell, 1u);
    before = __shfl_sync(~0u, before, 0);
    if (before + 1 < static_cast<uint32_t>(slices)) return false;
    __threadfence();
    sum = __ldcg(partials);
    for (int i = 1; i < slices; ++i) Add(sum, __ldcg(partials + i * 32));
    if (lane_ == 0) work.args.arrivals[cell] = 0;
    return true;
  }

  __device__ void StoreTile(const Work& work, const Segment& s, int tile, const float4& sum) const {
    const StreamGroup& group = work.groups[s.group];
    const float lower[2] = {sum.x, sum.y}, upper[2] = {sum.z, sum.w};
    const int rows = TileRows(work, tile), row = lane_ / 4, out_row = FirstRow(work, tile) + row;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int x_row = lane_ % 4 * 2 + i;
      if (x_row >= group.row_count) continue;
      const float factor = RowFactor(work, x_row);
      if constexpr (Out::kFused) {
        if (work.out.gated()) {
          if (row < rows / 2) {
            work.out.StoreGated(out_row, x_row, lower[i] * factor, upper[i] * factor);
          }
          continue;
        }
      }
      if (row < rows) work.out(group, out_row, x_row, lower[i] * factor);
      if (row + 8 < rows) work.out(group, out_row + 8, x_row, upper[i] * factor);
    }
  }

  // What is left of the norm of a row.
  __device__ float RowFactor(const Work& work, int x_row) const {
    if constexpr (Out::kFused) {
      if (const StreamNorm norm = work.out.norm(); norm.weight != nullptr) {
        float sum = 0;
        for (int i = 0; i < kConsumers; ++i) sum += shared_->squares[i][x_row];
        return InverseRms(sum, work.args.k, norm.epsilon);
      }
    }
    return 1;
  }

  StreamShared* const shared_;
  const StreamRing ring_;
  char* const x_;
  char* const stages_;
  const int warp_, lane_;
  RingCursor cursor_;       // of stages; of buffers of sums for storers
  RingCursor sums_cursor_;  // consumers: of buffers of sums
  RingCursor landed_;       // producers: the next stage to be there
  int started_ = 0;         // producers: stages under way
  int asides_ = 0;          // storers: parts done
};

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_WEIGHT_STREAM_CUH_
