#include "kernels/cuda/row_math.cuh"
#include "kernels/cuda/row_view.cuh"
#include "kernels/cuda/rows.h"

namespace mneme::cuda {
namespace {

constexpr int64_t kMaxThreads = 1024;
constexpr int kPlainThreads = 256;

// A row a block, kVectors vectors of 16 bytes a thread, which stay in registers between the sum and
// the scaling: each element is read once and written once. Bound by device memory; with few rows by
// latency, which is why the weights are fetched before the rows are there.
template <typename T, int kVectors>
__global__ void __launch_bounds__(kMaxThreads)
    RmsNormVectors(RowView<const T> in, const float* weight, float epsilon, int vectors,
                   RowView<T> out) {
  constexpr int kCount = Vec16<T>::kCount;
  __shared__ float sums[kMaxThreads / 32];
  LetNextStart();
  Vec16<float> scale[kVectors][kCount / 4];
#pragma unroll
  for (int k = 0; k < kVectors; ++k) {
    const int i = threadIdx.x + k * blockDim.x;
    if (i >= vectors) continue;
#pragma unroll
    for (int j = 0; j < kCount / 4; ++j) scale[k][j] = LoadVec16(weight + i * kCount + j * 4);
  }
  WaitForPrior();

  const T* from = in[blockIdx.x];
  Vec16<T> x[kVectors];
#pragma unroll
  for (int k = 0; k < kVectors; ++k) {
    const int i = threadIdx.x + k * blockDim.x;
    if (i < vectors) x[k] = LoadVec16(from + i * kCount);
  }
  float sum = 0;
#pragma unroll
  for (int k = 0; k < kVectors; ++k) {
    if (threadIdx.x + k * blockDim.x >= vectors) continue;
#pragma unroll
    for (int j = 0; j < kCount; ++j) sum += ToFloat(x[k].values[j]) * ToFloat(x[k].values[j]);
  }
  const float inverse = InverseRms(BlockSum(sum, sums), int64_t{vectors} * kCount, epsilon);

  T* to = out[blockIdx.x];
#pragma unroll
  for (int k = 0; k < kVectors; ++k) {
    const int i = threadIdx.x + k * blockDim.x;
    if (i >= vectors) continue;
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      x[k].values[j] =
          FromFloat<T>(ToFloat(x[k].values[j]) * inverse * scale[k][j / 4].values[j % 4]);
    }
    StoreVec16(to + i * kCount, x[k]);
  }
}

// A row a block; any number of columns and any alignment. Reads the row twice.
template <typename T>
__global__ void RmsNormPlain(RowView<const T> in, const float* weight, float epsilon, int64_t cols,
                             RowView<T> out) {
  __shared__ float sums[kPlainThreads / 32];
  LetNextStart();
  WaitForPrior();
  const T* from = in[blockIdx.x];
  float sum = 0;
  for (int64_t i = threadIdx.x; i < cols; i += kPlainThreads) {
    sum += ToFloat(from[i]) * ToFloat(from[i]);
  }
  const float inverse = InverseRms(BlockSum(sum, sums), cols, epsilon);
  T* to = out[blockIdx.x];
  for (int64_t i = threadIdx.x; i < cols; i += kPlainThreads) {
    to[i] = FromFloat<T>(ToFloat(from[i]) * inverse * weight[i]);
  }
}

template <typename T>
void RmsNormOf(Matrix in, const float* weight, float epsilon, Matrix out,
               const LaunchContext& context) {
  const int64_t vectors = in.cols / Vec16<T>::kCount;
  const dim3 grid(static_cast<unsigned>(in.rows));
  const auto launch = [&](auto* kernel, int64_t vectors_per_thread) {
    Launch(context, "RmsNorm", kernel, grid,
           BlockFor(CeilDiv(vectors, vectors_per_thread), kMaxThreads), 0, ViewOf<const T>(in),
           weight, epsilon, static_cast<int>(vectors), ViewOf<T>(out));
  };
  const bool aligned = IsVectors(in, in.cols) && IsVectors(out, in.cols) && IsAligned16(weight);
  if (aligned && vectors <= kMaxThreads) return launch(RmsNormVectors<T, 1>, 1);
  if (aligned && vectors <= 2 * kMaxThreads) return launch(RmsNormVectors<T, 2>, 2);
  if constexpr (sizeof(T) == 4) {
    if (aligned && vectors <= 4 * kMaxThreads) return launch(RmsNormVectors<T, 4>, 4);
  }
  Launch(context, "RmsNorm", RmsNormPlain<T>, grid, dim3(kPlainThreads), 0, ViewOf<const T>(in),
         weight, epsilon, in.cols, ViewOf<T>(out));
}

}  // namespace

void RmsNorm(Matrix in, const void* weight, float epsilon, Matrix out,
             const LaunchContext& context) {
  ForActivationType(in.dtype, context, [&](auto type) {
    RmsNormOf<decltype(type)>(in, static_cast<const float*>(weight), epsilon, out, context);
  });
}

}  // namespace mneme::cuda
