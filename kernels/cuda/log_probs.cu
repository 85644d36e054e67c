#include "kernels/cuda/row_view.cuh"
#include "kernels/cuda/rows.h"

namespace mneme::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;

// Σ exp(x − max) over what was added. NaN and +∞ give NaN; with nothing but −∞ the sum is 0.
struct ExpSum {
  float max = -3.402823466e38f;  // finite, so that exp(−∞ − max) is 0
  double sum = 0;

  __device__ __forceinline__ void Raise(float new_max) {
    if (new_max <= max) return;
    sum *= expf(max - new_max);
    max = new_max;
  }
  template <int kCount>
  __device__ __forceinline__ void Add(const float (&x)[kCount]) {
    float highest = x[0];
#pragma unroll
    for (int i = 1; i < kCount; ++i) highest = fmaxf(highest, x[i]);
    Raise(highest);
    float terms = 0;
#pragma unroll
    for (int i = 0; i < kCount; ++i) terms += expf(x[i] - max);
    sum += terms;
  }
};

__device__ __forceinline__ double WarpSumOf(double x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(~0u, x, offset);
  return x;
}

// ln Σ exp over the whole block, in every thread.
__device__ double BlockLogSumExp(ExpSum part) {
  __shared__ float maxima[kWarps];
  __shared__ double sums[kWarps];
  const float warp_max = WarpMax(part.max);
  if (threadIdx.x % 32 == 0) maxima[threadIdx.x / 32] = warp_max;
  __syncthreads();
  float max = maxima[0];
  for (int i = 1; i < kWarps; ++i) max = fmaxf(max, maxima[i]);
  part.Raise(max);
  const double warp_sum = WarpSumOf(part.sum);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = warp_sum;
  __syncthreads();
  double sum = 0;
  for (int i = 0; i < kWarps; ++i) sum += sums[i];
  return max + log(sum);
}

// A row a block. Reads the logits once, kBatch vectors of kCount a thread in flight; bound by
// device memory.
template <int kCount>
__global__ void __launch_bounds__(kThreads)
    TargetLogProbsKernel(RowView<const float> logits, int64_t cols, const int32_t* targets,
                         float* out) {
  constexpr int kBatch = 16 / kCount;
  LetNextStart();
  WaitForPrior();
  const float* row = logits[blockIdx.x];
  ExpSum part;
  constexpr int64_t kStep = int64_t{kThreads} * kCount;
  for (int64_t first = threadIdx.x * kCount; first < cols; first += kBatch * kStep) {
    float x[kBatch * kCount];
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int64_t i = first + b * kStep;
      if constexpr (kCount == 1) {
        x[b] = i < cols ? row[i] : -INFINITY;
      } else {
        const Vec16<float> v = i < cols ? LoadVec16(row + i)
                                        : Vec16<float>{-INFINITY, -INFINITY, -INFINITY, -INFINITY};
#pragma unroll
        for (int j = 0; j < kCount; ++j) x[b * kCount + j] = v.values[j];
      }
    }
    part.Add(x);
  }
  const double log_sum = BlockLogSumExp(part);
  if (threadIdx.x == 0) {
    out[blockIdx.x] = static_cast<float>(row[targets[blockIdx.x]] - log_sum);
  }
}

}  // namespace

void TargetLogProbs(Matrix logits, const int32_t* targets, float* out,
                    const LaunchContext& context) {
  auto* kernel = IsVectors(logits, logits.cols) ? TargetLogProbsKernel<4> : TargetLogProbsKernel<1>;
  Launch(context, "TargetLogProbs", kernel, dim3(static_cast<unsigned>(logits.rows)),
         dim3(kThreads), 0, ViewOf<const float>(logits), logits.cols, targets, out);
}

}  // namespace mneme::cuda
