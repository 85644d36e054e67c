#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include <cstdint>

#include "kernels/cuda/delta.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/float_vectors.cuh"

namespace mneme::cuda {
namespace {

constexpr int kThreads = 256;

// A block for a row of the matrix, its threads along f by kWidth elements. Bound by memory.
template <int kWidth, typename T, typename W>
__global__ void __launch_bounds__(kThreads)
    MergeKernel(const W* __restrict__ w_down, const T* __restrict__ delta, const float* scales,
                int64_t f, W* __restrict__ merged) {
  LetNextStart();
  WaitForPrior();
  const int64_t row = int64_t{blockIdx.x} * f;
  const float scale = scales == nullptr ? 1.0f : scales[blockIdx.x];
#pragma unroll 4
  for (int64_t i = threadIdx.x * kWidth; i < f; i += kThreads * kWidth) {
    Floats<kWidth> sum = LoadFloats<kWidth>(w_down + row + i);
    const Floats<kWidth> values = LoadFloats<kWidth>(delta + row + i);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) sum.at[j] += scale * values.at[j];
    StoreFloats(merged + row + i, sum);
  }
}

// As MergeKernel.
template <int kWidth, typename T>
__global__ void __launch_bounds__(kThreads)
    ReadKernel(const T* __restrict__ delta, int64_t f, float* __restrict__ out,
               int64_t out_stride) {
  LetNextStart();
  WaitForPrior();
  const int64_t row = blockIdx.x;
#pragma unroll 4
  for (int64_t i = threadIdx.x * kWidth; i < f; i += kThreads * kWidth) {
    StoreFloats(out + row * out_stride + i, LoadFloats<kWidth>(delta + row * f + i));
  }
}

template <typename T, typename W>
void Merge(const void* w_down, const void* delta, const DeltaLayout& layout, void* merged,
           const LaunchContext& context) {
  const char* slab = static_cast<const char*>(delta);
  const auto kernel = layout.f % 8 == 0 ? MergeKernel<8, T, W> : MergeKernel<1, T, W>;
  Launch(context, "MergeDelta", kernel, dim3(static_cast<unsigned>(layout.d)), dim3(kThreads), 0,
         static_cast<const W*>(w_down), reinterpret_cast<const T*>(slab + layout.read_offset()),
         sizeof(T) == 1 ? reinterpret_cast<const float*>(slab + layout.scale_offset()) : nullptr,
         layout.f, static_cast<W*>(merged));
}

template <typename W>
void MergeInto(const void* w_down, const void* delta, const DeltaLayout& layout, void* merged,
               const LaunchContext& context) {
  switch (layout.read) {
    case DeltaType::kFloat32:
      return Merge<float, W>(w_down, delta, layout, merged, context);
    case DeltaType::kBFloat16:
      return Merge<__nv_bfloat16, W>(w_down, delta, layout, merged, context);
    case DeltaType::kFp8E4M3:
      return Merge<__nv_fp8_e4m3, W>(w_down, delta, layout, merged, context);
  }
}

template <typename T>
void Read(const void* delta, const DeltaLayout& layout, const Matrix& out,
          const LaunchContext& context) {
  const bool vectors =
      layout.f % 8 == 0 && out.stride % 4 == 0 && reinterpret_cast<uintptr_t>(out.data) % 16 == 0;
  const auto kernel = vectors ? ReadKernel<8, T> : ReadKernel<1, T>;
  Launch(context, "ReadDelta", kernel, dim3(static_cast<unsigned>(layout.d)), dim3(kThreads), 0,
         static_cast<const T*>(delta), layout.f, static_cast<float*>(out.data), out.stride);
}

}  // namespace

void MergeDelta(const void* w_down, DType dtype, const void* delta, const DeltaLayout& layout,
                void* merged, const LaunchContext& context) {
  if (dtype == DType::kBF16) {
    MergeInto<__nv_bfloat16>(w_down, delta, layout, merged, context);
  } else {
    MergeInto<float>(w_down, delta, layout, merged, context);
  }
}

void ReadDelta(const void* delta, const DeltaLayout& layout, Matrix out,
               const LaunchContext& context) {
  if (layout.accumulate == DeltaType::kFloat32) {
    Read<float>(delta, layout, out, context);
  } else {
    Read<__nv_bfloat16>(delta, layout, out, context);
  }
}

}  // namespace mneme::cuda
