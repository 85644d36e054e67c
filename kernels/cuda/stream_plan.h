#ifndef MNEME_KERNELS_CUDA_STREAM_PLAN_H_
#define MNEME_KERNELS_CUDA_STREAM_PLAN_H_

// How a launch of weight_stream.cuh cuts its work; worked out on the host or in the kernel.

#include <cuda_runtime.h>

#include <cstdint>

namespace mneme::cuda {

// Warps of a block. One producer alone issues a copy in about 75 cycles, which is slower than the
// memory; two storers, so that joining slices does not hold up the tiles behind.
inline constexpr int kProducers = 2, kStorers = 2, kConsumers = 8;
inline constexpr int kStreamThreads = 32 * (kProducers + kStorers + kConsumers);
inline constexpr int kMaxXRows = 8;
inline constexpr int kSliceAlign = 64;
// Groups of one launch.
inline constexpr int kMaxStreamGroups = 64;

// Workspace: arrival counters (zero between launches), then the partial sums of cut products.
inline constexpr int64_t kStreamArrivals = 32768;
inline constexpr int64_t kStreamArrivalBytes = kStreamArrivals * 4;
inline constexpr int64_t kStreamPartialBytes = int64_t{40} << 20;
inline constexpr int64_t kStreamWorkspaceBytes = kStreamArrivalBytes + kStreamPartialBytes;
inline constexpr int64_t kUnitPartialBytes = 32 * 16;

// A block has a multiprocessor to itself: if two fit, those of a launch may come to stand in pairs
// on half of the multiprocessors, behind a kernel with larger blocks.
inline constexpr int kStreamSharedBytes = 224 * 1024;
// Of x, all its rows in one slice of k. Eight rows of 4864 fit: half of 9728 columns.
inline constexpr int kMaxXBytes = kMaxXRows * (4864 * 2 + 64);
// A stage of the ring holds so many bytes of each weight row of a tile, which is read in steps of
// 64: the padding puts neighbouring rows into different banks. Shorter copies cost more than one
// block has time for.
inline constexpr int kChunkBytes = 2048;
inline constexpr int kStageRowBytes = kChunkBytes + 64;
inline constexpr int kMaxStages = 16;
// Of stages that are asked for and not there: with more, what else a kernel reads and writes waits
// behind the weights.
inline constexpr int kBytesUnderWay = 48 * 1024;
// Rows of a tile.
inline constexpr int kMinTileRows = 8, kMaxTileRows = 12;

struct StreamPlan {
  int groups, slices, tiles;  // units: groups · slices · tiles, tiles fastest
  int slice_k;                // columns of a slice but the last
  int tile_rows;              // weight rows of a tile but the last
  int x_row_bytes;

  __host__ __device__ int64_t units() const { return int64_t{groups} * slices * tiles; }
};

// The shared memory of a block behind its head: x, then the ring.
struct StreamRing {
  int x_bytes;
  int stages, stage_bytes;
  int under_way;  // stages
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

// How many stages of tiles of so many rows the ring has.
__host__ __device__ constexpr int RingStages(int tile_rows, int ring_bytes) {
  const int stages = ring_bytes / (tile_rows * kStageRowBytes);
  return stages < kMaxStages ? stages : kMaxStages;
}

// The weight rows that the busiest block reads.
__host__ __device__ constexpr int BusiestRows(int parts, int n, int blocks, int tile_rows) {
  return CeilDivide(parts * CeilDivide(n, tile_rows), blocks) * tile_rows;
}

// Of the tile heights that share the work evenly, to 1.5 %, the largest that fills the ring enough
// (60 KB under way hide the memory's latency), else the one that fills it best. Multiples of
// `step`, 1 or 2.
__host__ __device__ inline int TileRowsFor(int parts, int n, int blocks, int ring_bytes, int step) {
  const int kEnoughStageRows = 60 * 1024 / kChunkBytes;
  int64_t least = INT64_MAX;
  for (int rows = kMaxTileRows; rows >= kMinTileRows; rows -= step) {
    const int64_t busiest = BusiestRows(parts, n, blocks, rows);
    if (busiest < least) least = busiest;
  }
  int best = 0, best_fill = 0;
  for (int rows = kMaxTileRows; rows >= kMinTileRows; rows -= step) {
    const int stage_rows = RingStages(rows, ring_bytes) * rows;
    const int fill = stage_rows < kEnoughStageRows ? stage_rows : kEnoughStageRows;
    if (int64_t{64} * BusiestRows(parts, n, blocks, rows) > 65 * least || fill <= best_fill) {
      continue;
    }
    best = rows;
    best_fill = fill;
  }
  return best;
}

// `rows`: the most that a group has. `head_bytes`: shared memory taken before x. `gated`: tiles
// have equally many rows of both halves of n.
__host__ __device__ inline StreamPlan MakeStreamPlan(int groups, int n, int k, int rows,
                                                     int row_pad_bytes, int head_bytes, int blocks,
                                                     bool gated = false) {
  StreamPlan plan;
  plan.groups = groups;
  plan.slice_k = SliceColumns(k, rows);
  plan.slices = CeilDivide(k, plan.slice_k);
  plan.x_row_bytes = plan.slice_k * 2 + row_pad_bytes;
  const int ring_bytes = kStreamSharedBytes - head_bytes - rows * plan.x_row_bytes;
  plan.tile_rows = TileRowsFor(groups * plan.slices, n, blocks, ring_bytes, gated ? 2 : 1);
  plan.tiles = CeilDivide(n, plan.tile_rows);
  return plan;
}

// The ring beside `x_bytes` of x for tiles of up to `tile_rows`.
__host__ __device__ inline StreamRing MakeStreamRing(int head_bytes, int x_bytes, int tile_rows) {
  StreamRing ring;
  ring.x_bytes = x_bytes;
  ring.stage_bytes = tile_rows * kStageRowBytes;
  ring.stages = RingStages(tile_rows, kStreamSharedBytes - head_bytes - x_bytes);
  const int under_way = CeilDivide(kBytesUnderWay, tile_rows * kChunkBytes);
  ring.under_way = under_way < ring.stages ? under_way : ring.stages;
  return ring;
}

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_STREAM_PLAN_H_
