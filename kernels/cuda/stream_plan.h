#ifndef MNEME_KERNELS_CUDA_STREAM_PLAN_H_
#define MNEME_KERNELS_CUDA_STREAM_PLAN_H_

// How a launch of weight_stream.cuh cuts its work; worked out on the host or in the kernel.

#include <cuda_runtime.h>

#include <cstdint>

namespace mneme::cuda {

// Shared memory of a block: two blocks and those of the small kernels between them fit into a
// multiprocessor of sm_90, so that the next weights are on their way before a product has ended.
inline constexpr int kStreamSharedBytes = 110 * 1024;
// A stage of the ring holds so many bytes of each weight row of a tile, which is read in steps of
// 64: the padding puts neighbouring rows into different banks.
inline constexpr int kChunkBytes = 1024;
inline constexpr int kStageRowBytes = kChunkBytes + 64;
inline constexpr int kMaxStages = 12;
// Stages that a block asks for ahead of its ring while it waits for the kernel in front.
inline constexpr int kPrefetchStages = 6;
inline constexpr int kMaxTileRows = 16;
inline constexpr int kMinTileRows = 8;
// Of x, all its rows in one slice of k. Eight rows of 2560 fit.
inline constexpr int kMaxXBytes = 8 * (2560 * 2 + 64);
inline constexpr int kSliceAlign = 64;
// Groups of one launch.
inline constexpr int kMaxStreamGroups = 64;

// Workspace: arrival counters (zero between launches), then the partial sums of cut products.
inline constexpr int64_t kStreamArrivals = 32768;
inline constexpr int64_t kStreamArrivalBytes = kStreamArrivals * 4;
inline constexpr int64_t kStreamPartialBytes = int64_t{32} << 20;
inline constexpr int64_t kStreamWorkspaceBytes = kStreamArrivalBytes + kStreamPartialBytes;
inline constexpr int64_t kUnitPartialBytes = 32 * 16;

struct StreamPlan {
  int groups, slices, tiles;  // units: groups · slices · tiles, tiles fastest
  int slice_k;                // columns of a slice but the last
  int tile_rows;              // weight rows of a tile but the last
  int stages, stage_bytes;
  int x_row_bytes, x_bytes;

  __host__ __device__ int64_t units() const { return int64_t{groups} * slices * tiles; }
};

__host__ __device__ constexpr int CeilDivide(int a, int b) { return (a + b - 1) / b; }

// The columns that a slice has so that `rows` rows of x fit beside the ring.
__host__ __device__ constexpr int SliceColumns(int k, int rows) {
  const int most = (kMaxXBytes / rows - 64) / 2 / kSliceAlign * kSliceAlign;
  const int slices = CeilDivide(k, most);
  return CeilDivide(CeilDivide(k, slices), kSliceAlign) * kSliceAlign;
}

// Whether products of n weight rows and k columns with up to `rows` rows of x, for `groups` groups,
// fit into the workspace.
__host__ __device__ constexpr bool StreamFits(int64_t groups, int64_t n, int k, int rows) {
  const int64_t slices = CeilDivide(k, SliceColumns(k, rows));
  const int64_t cells = groups * ((n + kMinTileRows - 1) / kMinTileRows);
  return slices == 1 ||
         (cells <= kStreamArrivals && cells * slices * kUnitPartialBytes <= kStreamPartialBytes);
}

// Of tile heights, the one with which the busiest block has the fewest weight rows to read; low
// tiles, which use the tensor cores less, only for a gain that shows.
__host__ __device__ inline int TileRowsFor(int parts, int n, int blocks) {
  int best = kMaxTileRows;
  int64_t best_cost = 0;
  for (int rows = kMaxTileRows; rows >= kMinTileRows; --rows) {
    const int64_t units = int64_t{parts} * CeilDivide(n, rows);
    const int64_t cost = (units + blocks - 1) / blocks * rows;
    if (best_cost == 0 || cost * 64 < best_cost * 63) {
      best_cost = cost;
      best = rows;
    }
  }
  return best;
}

// `rows`: the most that a group has. `head_bytes`: shared memory taken before x.
__host__ __device__ inline StreamPlan MakeStreamPlan(int groups, int n, int k, int rows,
                                                     int row_pad_bytes, int head_bytes,
                                                     int blocks) {
  StreamPlan plan;
  plan.groups = groups;
  plan.slice_k = SliceColumns(k, rows);
  plan.slices = CeilDivide(k, plan.slice_k);
  plan.tile_rows = TileRowsFor(groups * plan.slices, n, blocks);
  plan.tiles = CeilDivide(n, plan.tile_rows);
  plan.x_row_bytes = plan.slice_k * 2 + row_pad_bytes;
  plan.x_bytes = rows * plan.x_row_bytes;
  plan.stage_bytes = plan.tile_rows * kStageRowBytes;
  const int stages = (kStreamSharedBytes - head_bytes - plan.x_bytes) / plan.stage_bytes;
  plan.stages = stages < kMaxStages ? stages : kMaxStages;
  return plan;
}

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_STREAM_PLAN_H_
