// The application of updates to ΔW.

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/fast_weight_device.cuh"
#include "kernels/cuda/fast_weight_kernels.h"
#include "kernels/cuda/fast_weight_rounding.cuh"
#include "kernels/cuda/float_vectors.cuh"

namespace mneme::cuda {
namespace {

constexpr float kLargestE4m3 = 448;
// Rows of ΔW that are smaller are zero to an fp8 copy.
constexpr float kLeastRowMax = 1e-30f;

// One row of one update. T: what ΔW accumulates in; R: what products read, T itself or a copy.
template <int kWidth, typename A, typename T, typename R>
class RowUpdate {
 public:
  __device__ RowUpdate(const UpdateTask& task, const UpdateDecision& decision, const A* u,
                       int64_t row, int64_t f, int64_t counter_offset, int64_t read_offset)
      : u_(u),
        values_(reinterpret_cast<T*>(task.delta) + row * f),
        copy_(reinterpret_cast<R*>(task.delta + read_offset) + row * f),
        w_down_(static_cast<const A*>(task.w_down) + row * f),
        merged_(static_cast<A*>(task.merged) + row * f),
        merge_(task.merged != nullptr),
        first_element_(row * f),
        f_(f),
        use_update_(!decision.skipped),
        use_old_(!task.delta_is_zero),
        write_(use_update_ || task.delta_is_zero),
        scale_(decision.scale),
        keep_(decision.skipped ? 1.0f : task.keep),
        rounding_(task.delta_is_zero
                      ? 0
                      : *reinterpret_cast<const uint32_t*>(task.delta + counter_offset)) {}

  // ΔW and a copy in bf16. Two vectors at once, for more loads in flight.
  __device__ void Apply() {
    constexpr int64_t kStep = kUpdateThreads * kWidth;
    for (int64_t i = threadIdx.x * kWidth; i < f_; i += 2 * kStep) {
      const int64_t j = i + kStep;
      const Floats<kWidth> u0 = Update(i), old0 = Old(i), u1 = Update(j), old1 = Old(j);
      Combine(i, u0, old0);
      Combine(j, u1, old1);
    }
  }

  // The copy in fp8, whose scale was found from the row's largest value. Each thread reads what it
  // wrote itself.
  __device__ void CopyScaled(float inverse_scale) const {
    if (!write_) return;
    for (int64_t i = threadIdx.x * kWidth; i < f_; i += kUpdateThreads * kWidth) {
      Floats<kWidth> x = LoadFloats<kWidth>(values_ + i);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) x.at[j] *= inverse_scale;
      StoreFloats(copy_ + i, x);
    }
  }

  __device__ bool write() const { return write_; }
  __device__ double update_squares() const { return update_squares_; }
  __device__ double delta_squares() const { return delta_squares_; }
  __device__ float largest() const { return largest_; }

 private:
  __device__ Floats<kWidth> Update(int64_t i) const {
    return use_update_ && i < f_ ? LoadFloats<kWidth>(u_ + i) : Floats<kWidth>{};
  }
  __device__ Floats<kWidth> Old(int64_t i) const {
    return use_old_ && i < f_ ? LoadFloats<kWidth>(values_ + i) : Floats<kWidth>{};
  }

  __device__ void Combine(int64_t i, const Floats<kWidth>& u, const Floats<kWidth>& old) {
    if (i >= f_) return;
    update_squares_ += SumSquares(u);
    Floats<kWidth> values;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) values.at[j] = fmaf(keep_, old.at[j], scale_ * u.at[j]);
    T rounded[kWidth];
    rounding_.Round(values, first_element_ + i, rounded);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      values.at[j] = ToFloat(rounded[j]);
      if constexpr (sizeof(R) == 1) largest_ = fmaxf(largest_, fabsf(values.at[j]));
    }
    delta_squares_ += SumSquares(values);
    if (std::is_same_v<T, R> && merge_) Merge(i, values);
    if (!write_) return;
    StoreElements<kWidth>(values_ + i, rounded);
    if constexpr (sizeof(R) > 1 && !std::is_same_v<T, R>) StoreFloats(copy_ + i, values);
  }

  __device__ void Merge(int64_t i, const Floats<kWidth>& values) {
    Floats<kWidth> sum = LoadFloats<kWidth>(w_down_ + i);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) sum.at[j] += values.at[j];
    StoreFloats(merged_ + i, sum);
  }

  const A* u_;
  T* values_;
  R* copy_;
  const A* w_down_;
  A* merged_;
  bool merge_;
  int64_t first_element_, f_;
  bool use_update_, use_old_, write_;
  float scale_, keep_;
  Rounding<T> rounding_;
  double update_squares_ = 0, delta_squares_ = 0;
  float largest_ = 0;
};

// The largest x of a block, in all threads.
__device__ float BlockMax(float x) {
  __shared__ float most[kUpdateThreads / 32];
  x = WarpMax(x);
  if (threadIdx.x % 32 == 0) most[threadIdx.x / 32] = x;
  __syncthreads();
  for (int i = 0; i < kUpdateThreads / 32; ++i) x = fmaxf(x, most[i]);
  return x;
}

// A block for one row of one update's ΔW, its threads along f by kWidth elements; grid (d,
// updates). Bound by memory: U and ΔW are read, ΔW and its copy written.
template <int kWidth, typename A, typename T, typename R>
__global__ void __launch_bounds__(kUpdateThreads)
    ApplyKernel(const __grid_constant__ UpdateBatch batch, int64_t counter_offset,
                int64_t read_offset, int64_t scale_offset) {
  LetNextStart();
  WaitForPrior();
  const int index = static_cast<int>(blockIdx.y);
  const UpdateTask& task = batch.tasks[index];
  UpdateDecision decision = {0, 1, false, false};
  if (MustMeasure(batch, index)) decision = batch.control->decisions[index];
  const int64_t row = blockIdx.x, place = index * batch.d + row;
  RowUpdate<kWidth, A, T, R> update(task, decision,
                                    static_cast<const A*>(batch.updates) + place * batch.f, row,
                                    batch.f, counter_offset, read_offset);
  update.Apply();
  if constexpr (sizeof(R) == 1) {
    const float largest = BlockMax(update.largest());
    const bool zero = !(largest >= kLeastRowMax);
    update.CopyScaled(zero ? 0.0f : kLargestE4m3 / largest);
    if (threadIdx.x == 0 && update.write()) {
      reinterpret_cast<float*>(task.delta + scale_offset)[row] =
          zero ? 0.0f : largest / kLargestE4m3;
    }
  }
  const double update_squares = BlockSumDouble(update.update_squares());
  const double delta_squares = BlockSumDouble(update.delta_squares());
  if (threadIdx.x == 0) batch.row_sums[place] = make_double2(update_squares, delta_squares);
}

template <typename A, typename T, typename R>
void LaunchApply(const UpdateBatch& batch, const DeltaLayout& layout,
                 const LaunchContext& context) {
  const auto kernel = batch.f % 8 == 0 ? ApplyKernel<8, A, T, R> : ApplyKernel<1, A, T, R>;
  Launch(context, "ApplyUpdates", kernel,
         dim3(static_cast<unsigned>(batch.d), static_cast<unsigned>(batch.count)),
         dim3(kUpdateThreads), 0, batch, layout.counter_offset(), layout.read_offset(),
         layout.scale_offset());
}

template <typename A>
void ApplyTo(const UpdateBatch& batch, const DeltaLayout& layout, const LaunchContext& context) {
  if (layout.accumulate == DeltaType::kBFloat16) {
    return layout.read == DeltaType::kFp8E4M3
               ? LaunchApply<A, __nv_bfloat16, __nv_fp8_e4m3>(batch, layout, context)
               : LaunchApply<A, __nv_bfloat16, __nv_bfloat16>(batch, layout, context);
  }
  switch (layout.read) {
    case DeltaType::kFloat32:
      return LaunchApply<A, float, float>(batch, layout, context);
    case DeltaType::kBFloat16:
      return LaunchApply<A, float, __nv_bfloat16>(batch, layout, context);
    case DeltaType::kFp8E4M3:
      return LaunchApply<A, float, __nv_fp8_e4m3>(batch, layout, context);
  }
}

}  // namespace

void ApplyUpdates(const UpdateBatch& batch, const DeltaLayout& layout,
                  const LaunchContext& context) {
  if (batch.dtype == DType::kBF16) {
    ApplyTo<__nv_bfloat16>(batch, layout, context);
  } else {
    ApplyTo<float>(batch, layout, context);
  }
}

}  // namespace mneme::cuda
