// What becomes of an update: norms before it is applied, results afterwards.

#include <cuda_bf16.h>

#include <cmath>
#include <cstdint>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/fast_weight_device.cuh"
#include "kernels/cuda/fast_weight_kernels.h"
#include "kernels/cuda/float_vectors.cuh"

namespace mneme::cuda {
namespace {

// True in all threads of the block of a task that comes last; what thread 0 of the others wrote
// before is visible there. Leaves the counter zero.
__device__ bool IsLastBlock(uint32_t* arrivals) {
  __shared__ bool last;
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(arrivals, 1u) + 1 == gridDim.x;
    if (last) *arrivals = 0;
    __threadfence();
  }
  __syncthreads();
  return last;
}

// In the order of ChunkUpdate (kernels/backend.h). The candidate's norm follows from the sums:
// ‖keep ΔW + scale U‖² = keep² ΣΔW² + 2 keep scale ΣΔW U + scale² ΣU².
__device__ UpdateDecision Decide(const UpdateTask& task, const MeasuredSums& sums) {
  UpdateDecision decision = {sqrt(sums.update_squares), 1, false, false};
  if (!isfinite(decision.update_norm)) {
    decision.skipped = true;
    return decision;
  }
  double scale = 1;
  if (task.clip_norm > 0 && decision.update_norm > static_cast<double>(task.clip_norm)) {
    decision.clipped = true;
    scale = static_cast<double>(task.clip_norm) / decision.update_norm;
    decision.scale = static_cast<float>(scale);
  }
  if (task.max_norm > 0) {
    const double keep = static_cast<double>(task.keep);
    const double squares = keep * keep * sums.delta_squares + 2 * keep * scale * sums.products +
                           scale * scale * sums.update_squares;
    decision.skipped = !(sqrt(fmax(squares, 0.0)) <= task.max_norm);
  }
  return decision;
}

// A block takes every gridDim.x-th row of U, and of ΔW where the candidate's norm is asked for; the
// last one decides. Grid (kMeasureBlocks, updates). Bound by memory or by conversions to double.
template <int kWidth, typename A, typename T>
__global__ void __launch_bounds__(kUpdateThreads)
    MeasureKernel(const __grid_constant__ UpdateBatch batch) {
  LetNextStart();
  WaitForPrior();
  const int index = static_cast<int>(blockIdx.y);
  if (!MustMeasure(batch, index)) return;
  const UpdateTask& task = batch.tasks[index];
  const bool use_delta = task.max_norm > 0 && !task.delta_is_zero;
  MeasuredSums sums = {0, 0, 0};
  for (int64_t row = blockIdx.x; row < batch.d; row += gridDim.x) {
    const A* u = static_cast<const A*>(batch.updates) + (index * batch.d + row) * batch.f;
    const T* delta = reinterpret_cast<const T*>(task.delta) + row * batch.f;
#pragma unroll 2
    for (int64_t i = threadIdx.x * kWidth; i < batch.f; i += kUpdateThreads * kWidth) {
      const Floats<kWidth> x = LoadFloats<kWidth>(u + i);
      const Floats<kWidth> w = use_delta ? LoadFloats<kWidth>(delta + i) : Floats<kWidth>{};
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        const double xd = static_cast<double>(x.at[j]), wd = static_cast<double>(w.at[j]);
        sums.update_squares += xd * xd;
        sums.products += xd * wd;
        sums.delta_squares += wd * wd;
      }
    }
  }
  MeasuredSums* measured = batch.control->measured[index];
  sums.update_squares = BlockSumDouble(sums.update_squares);
  sums.products = BlockSumDouble(sums.products);
  sums.delta_squares = BlockSumDouble(sums.delta_squares);
  if (threadIdx.x == 0) measured[blockIdx.x] = sums;
  if (!IsLastBlock(&batch.control->arrivals[index])) return;

  MeasuredSums all = {0, 0, 0};
  if (threadIdx.x < gridDim.x) {
    const double* from = &measured[threadIdx.x].update_squares;
    all = {__ldcg(from), __ldcg(from + 1), __ldcg(from + 2)};
  }
  all.update_squares = BlockSumDouble(all.update_squares);
  all.products = BlockSumDouble(all.products);
  all.delta_squares = BlockSumDouble(all.delta_squares);
  if (threadIdx.x == 0) batch.control->decisions[index] = Decide(task, all);
}
static_assert(kMeasureBlocks <= kUpdateThreads);

// A block for an update. Later kernels start when ΔW is complete, not before: ApplyDeltas reads it
// ahead of the kernel in front.
__global__ void __launch_bounds__(kUpdateThreads)
    FinishKernel(const __grid_constant__ UpdateBatch batch, int64_t counter_offset,
                 ChunkUpdateResult* results) {
  WaitForPrior();
  LetNextStart();
  const int index = static_cast<int>(blockIdx.x);
  const UpdateTask& task = batch.tasks[index];
  double update_squares = 0, delta_squares = 0;
#pragma unroll 4
  for (int64_t i = threadIdx.x; i < batch.d; i += kUpdateThreads) {
    const double2 sums = batch.row_sums[index * batch.d + i];
    update_squares += sums.x;
    delta_squares += sums.y;
  }
  update_squares = BlockSumDouble(update_squares);
  delta_squares = BlockSumDouble(delta_squares);
  if (threadIdx.x != 0) return;

  UpdateDecision decision = {sqrt(update_squares), 1, false, false};
  if (MustMeasure(batch, index)) decision = batch.control->decisions[index];
  ChunkUpdateResult result;
  result.update_norm = decision.update_norm;
  result.delta_norm = sqrt(delta_squares);
  result.clipped = decision.clipped;
  result.skipped = decision.skipped;
  results[index] = result;

  auto* counter = reinterpret_cast<uint32_t*>(task.delta + counter_offset);
  *counter = (task.delta_is_zero ? 0 : *counter) + (decision.skipped ? 0 : 1);
  batch.control->maxima[index][0] = 0;
  batch.control->maxima[index][1] = 0;
}

template <typename A, typename T>
void LaunchMeasure(const UpdateBatch& batch, const LaunchContext& context) {
  const auto kernel = batch.f % 8 == 0 ? MeasureKernel<8, A, T> : MeasureKernel<1, A, T>;
  Launch(context, "MeasureUpdates", kernel,
         dim3(kMeasureBlocks, static_cast<unsigned>(batch.count)), dim3(kUpdateThreads), 0, batch);
}

}  // namespace

void MeasureUpdates(const UpdateBatch& batch, const DeltaLayout& layout,
                    const LaunchContext& context) {
  const bool wide = layout.accumulate == DeltaType::kFloat32;
  if (batch.dtype == DType::kBF16) {
    wide ? LaunchMeasure<__nv_bfloat16, float>(batch, context)
         : LaunchMeasure<__nv_bfloat16, __nv_bfloat16>(batch, context);
  } else {
    wide ? LaunchMeasure<float, float>(batch, context)
         : LaunchMeasure<float, __nv_bfloat16>(batch, context);
  }
}

void FinishUpdates(const UpdateBatch& batch, const DeltaLayout& layout, ChunkUpdateResult* results,
                   const LaunchContext& context) {
  Launch(context, "FinishUpdates", FinishKernel, dim3(static_cast<unsigned>(batch.count)),
         dim3(kUpdateThreads), 0, batch, layout.counter_offset(), results);
}

}  // namespace mneme::cuda
