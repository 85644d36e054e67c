#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/delta.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/row_units.cuh"
#include "kernels/cuda/weight_stream.cuh"

namespace mneme::cuda {
namespace {

// Groups of a wave, some of them, and where their ΔW begin and have their scales.
struct GroupRange {
  const StepView* step;
  int64_t wave, layer;
  int first, count;
  int64_t read_offset, scale_offset;

  // ΔW = 0 and padding: row_count 0.
  __device__ StreamGroup Find(int i) const {
    const WaveView& view = step->waves[wave];
    if (i >= count || first + i >= view.num_groups || layer >= view.num_layers) {
      return {nullptr, 0, 0};
    }
    const DeltaGroup group = view.groups[first + i];
    const auto* delta = static_cast<const char*>(view.deltas[layer * view.num_groups + first + i]);
    if (delta == nullptr) return {nullptr, 0, 0};
    return {delta + read_offset, group.first_row, min(group.row_count, kDeltaGroupRows)};
  }
  template <typename T>
  __device__ float Scale(const StreamGroup& group, int row) const {
    if constexpr (sizeof(T) > 1) return 1;
    return reinterpret_cast<const float*>(group.weights + (scale_offset - read_offset))[row];
  }
};

template <typename T>
struct DeltaOut {
  static constexpr bool kFused = false, kHasAside = true;

  GroupRange range;
  __nv_bfloat16* y;
  int64_t stride;
  KeptRows kept;

  __device__ void operator()(const StreamGroup& group, int column, int row, float sum) const {
    __nv_bfloat16* out = y + (group.first_row + row) * stride + column;
    *out = FromFloat<__nv_bfloat16>(ToFloat(*out) + sum * range.Scale<T>(group, column));
  }
  // The i-th unit of what is kept.
  __device__ bool Aside(int i) const {
    const int row_units = static_cast<int>(kept.row_units(sizeof(uint4)));
    if (i >= kept.rows * row_units) return false;
    kept.Put<uint4>(i / row_units, i % row_units);
    return true;
  }
};

// The head of a block's shared memory.
struct DeltaShared {
  StreamShared stream;
  StreamPlan plan;
  StreamRing ring;
  StreamGroup groups[kMaxStreamGroups];
};
constexpr int kHeadBytes = (static_cast<int>(sizeof(DeltaShared)) + 127) / 128 * 128;

// The groups that have work, in their order, and the plan for them. One warp. What a step declares
// is there before the step's first kernel starts, so this does not wait.
template <typename T>
__device__ void PlanGroups(const GroupRange& range, const StreamArgs& args, DeltaShared* shared) {
  const int lane = static_cast<int>(threadIdx.x);
  int found = 0, most_rows = 1;
  for (int first = 0; first < range.count; first += 32) {
    const StreamGroup group = range.Find(first + lane);
    const bool live = group.row_count > 0;
    const uint32_t all = __ballot_sync(~0u, live);
    if (live) shared->groups[found + __popc(all & ((1u << lane) - 1))] = group;
    found += __popc(all);
    most_rows = max(most_rows, __reduce_max_sync(~0u, group.row_count));
  }
  if (lane == 0) {
    const StreamPlan plan =
        MakeStreamPlan(found, args.n, args.k, most_rows, WeightMath<T>::kRowPadBytes, kHeadBytes,
                       static_cast<int>(gridDim.x));
    shared->plan = plan;
    shared->ring = MakeStreamRing(kHeadBytes, most_rows * plan.x_row_bytes, plan.tile_rows);
  }
}

// Threads and data: weight_stream.cuh. Bound by reading every group's ΔW once.
template <typename T>
__global__ void __launch_bounds__(kStreamThreads, 1)
    ApplyDeltasKernel(const __grid_constant__ StreamArgs args,
                      const __grid_constant__ DeltaOut<T> out) {
  LetNextStart();
  extern __shared__ __align__(128) char shared_bytes[];
  auto* const shared = reinterpret_cast<DeltaShared*>(shared_bytes);
  if (threadIdx.x < 32) PlanGroups<T>(out.range, args, shared);
  __syncthreads();
  WeightStream<T, DeltaOut<T>> stream(&shared->stream, shared_bytes + kHeadBytes, shared->ring);
  stream.Run({shared->plan, args, shared->groups, out});
}

template <typename T>
void LaunchStreamed(GroupRange range, int64_t num_groups, int per_launch, const Matrix& z,
                    const Matrix& y, const KeptRows& kept, void* workspace,
                    const LaunchContext& context) {
  const StreamArgs args = MakeStreamArgs(y.cols, z, workspace);
  for (int64_t first = 0; first < num_groups; first += per_launch) {
    range.first = static_cast<int>(first);
    range.count = static_cast<int>(std::min<int64_t>(per_launch, num_groups - first));
    const DeltaOut<T> out = {range, static_cast<__nv_bfloat16*>(y.data), y.stride,
                             first == 0 ? kept : KeptRows{}};
    LaunchStream<ApplyDeltasKernel<T>>(context, "ApplyDeltas", args, out);
  }
}

// For shapes and types without a streamed way. A warp for one row of one group's ΔW, its lanes
// along f; grid (rows of ΔW / warps, groups).
template <typename T, typename A>
__global__ void ApplyDeltasPlainKernel(const __grid_constant__ GroupRange range, const A* z,
                                       int64_t z_stride, int64_t f, A* y, int64_t y_stride,
                                       int64_t d) {
  LetNextStart();
  WaitForPrior();
  const StreamGroup group = range.Find(static_cast<int>(blockIdx.y));
  const int64_t row = int64_t{blockIdx.x} * (blockDim.x / 32) + threadIdx.x / 32;
  if (group.row_count == 0 || row >= d) return;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const T* weights = reinterpret_cast<const T*>(group.weights) + row * f;
  const A* rows = z + group.first_row * z_stride;
  float sums[kDeltaGroupRows] = {};
  for (int64_t i = lane; i < f; i += 32) {
    const float weight = ToFloat(weights[i]);
#pragma unroll
    for (int r = 0; r < kDeltaGroupRows; ++r) {
      if (r < group.row_count) sums[r] += weight * ToFloat(rows[r * z_stride + i]);
    }
  }
  const float scale = range.Scale<T>(group, static_cast<int>(row));
#pragma unroll
  for (int r = 0; r < kDeltaGroupRows; ++r) {
    const float sum = WarpSum(sums[r]);
    if (lane != 0 || r >= group.row_count) continue;
    A* out = y + (group.first_row + r) * y_stride + row;
    *out = FromFloat<A>(ToFloat(*out) + sum * scale);
  }
}

template <typename T, typename A>
void LaunchPlain(GroupRange range, int64_t num_groups, const Matrix& z, const Matrix& y,
                 const LaunchContext& context) {
  constexpr int kWarps = 8, kMaxGrid = 65535;
  for (int64_t first = 0; first < num_groups; first += kMaxGrid) {
    range.first = static_cast<int>(first);
    range.count = static_cast<int>(std::min<int64_t>(kMaxGrid, num_groups - first));
    const dim3 grid(static_cast<unsigned>((y.cols + kWarps - 1) / kWarps),
                    static_cast<unsigned>(range.count));
    Launch(context, "ApplyDeltas", ApplyDeltasPlainKernel<T, A>, grid, dim3(32 * kWarps), 0, range,
           static_cast<const A*>(z.data), z.stride, z.cols, static_cast<A*>(y.data), y.stride,
           y.cols);
  }
}

// How many groups one streamed launch takes, whatever their rows; 0: these cannot be streamed.
int GroupsPerLaunch(const DeltaLayout& layout, const Matrix& z, const Matrix& y) {
  const int64_t row_bytes = z.cols * SizeOf(layout.read);
  if (!CanStreamRows(z) || y.dtype != DType::kBF16 || row_bytes % 16 != 0) return 0;
  int groups = kMaxStreamGroups;
  while (groups > 0 && !StreamFits(groups, y.cols, static_cast<int>(z.cols), kDeltaGroupRows)) {
    --groups;
  }
  return groups;
}

template <typename T>
void Apply(const GroupRange& range, int64_t num_groups, int per_launch, const Matrix& z,
           const Matrix& y, const KeptRows& kept, void* workspace, const LaunchContext& context) {
  if (per_launch > 0) {
    LaunchStreamed<T>(range, num_groups, per_launch, z, y, kept, workspace, context);
  } else if (z.dtype == DType::kBF16) {
    LaunchPlain<T, __nv_bfloat16>(range, num_groups, z, y, context);
  } else {
    LaunchPlain<T, float>(range, num_groups, z, y, context);
  }
}

// More rows than these are kept sooner by a kernel of their own.
constexpr int64_t kMaxKeptRows = 64;

// What a streamed launch can keep of `rows` on the way; no rows: nothing.
KeptRows KeptOnTheWay(const StepView* step, int64_t wave, const ChunkRows* rows) {
  if (rows == nullptr || rows->z.rows > kMaxKeptRows) return {};
  const KeptRows kept = KeptRowsOf(step, wave, *rows);
  const bool fits = kept.alignment_bits() % sizeof(uint4) == 0 &&
                    kept.row_units(sizeof(uint4)) <= INT32_MAX / (2 * kMaxKeptRows);
  return fits ? kept : KeptRows{};
}

}  // namespace

int64_t DeltaWorkspaceBytes() { return kStreamWorkspaceBytes; }

bool ApplyDeltas(const StepView* step, int64_t wave, int64_t num_groups, int64_t layer,
                 const DeltaLayout& layout, Matrix z, Matrix y, const ChunkRows* keep,
                 void* workspace, const LaunchContext& context) {
  if (num_groups == 0 || y.cols == 0) return false;
  const GroupRange range = {step, wave, layer, 0, 0, layout.read_offset(), layout.scale_offset()};
  const int per_launch = GroupsPerLaunch(layout, z, y);
  const KeptRows kept = per_launch > 0 ? KeptOnTheWay(step, wave, keep) : KeptRows{};
  const auto apply = [&](auto type) {
    Apply<decltype(type)>(range, num_groups, per_launch, z, y, kept, workspace, context);
  };
  switch (layout.read) {
    case DeltaType::kFloat32:
      apply(float{});
      break;
    case DeltaType::kBFloat16:
      apply(__nv_bfloat16{});
      break;
    case DeltaType::kFp8E4M3:
      apply(__nv_fp8_e4m3{});
      break;
  }
  return kept.rows > 0;
}

}  // namespace mneme::cuda
