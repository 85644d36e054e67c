// What an update is made of: convolved targets, and how large its factors are.

#include <cuda_bf16.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/fast_weight_device.cuh"
#include "kernels/cuda/fast_weight_kernels.h"
#include "kernels/cuda/float_vectors.cuh"

namespace mneme::cuda {
namespace {

constexpr int kTaps = 5;
constexpr int kConvThreads = 64;
constexpr int kConvRows = 4;  // positions of a thread

bool IsAligned(const void* p, int64_t stride) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0 && stride % 8 == 0;
}

// The largest |x| of a block, as bits, which are ordered as the values (NaN above infinity), is
// added to `most`. Those of few blocks are larger than what is there.
template <int kThreads>
__device__ __forceinline__ void AddMaximum(uint32_t bits, uint32_t* most) {
  __shared__ uint32_t warps[kThreads / 32];
  bits = __reduce_max_sync(~0u, bits);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = bits;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int i = 1; i < kThreads / 32; ++i) bits = max(bits, warps[i]);
  if (bits > __ldcg(most)) atomicMax(most, bits);
}

// The bits of a thread's largest |x|, of every `step`-th vector from `first` on.
template <int kWidth, typename A>
__device__ __forceinline__ uint32_t MaxBits(const A* values, int64_t first, int64_t step,
                                            int64_t count) {
  uint32_t most = 0;
#pragma unroll 8
  for (int64_t i = first * kWidth; i < count; i += step * kWidth) {
    const Floats<kWidth> x = LoadFloats<kWidth>(values + i);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) most = max(most, __float_as_uint(x.at[j]) & 0x7fffffffu);
  }
  return most;
}

// A block for a row of z.
template <int kWidth, typename A>
__device__ void FindLargestZ(const UpdateBatch& batch, int64_t row) {
  const UpdateTask& task = batch.tasks[blockIdx.z];
  if (row >= task.rows || task.controlled()) return;
  const A* z = static_cast<const A*>(task.z) + row * task.z_stride;
  AddMaximum<kConvThreads>(MaxBits<kWidth>(z, threadIdx.x, kConvThreads, batch.f),
                           &batch.control->maxima[blockIdx.z][1]);
}

// Two jobs that share the memory's bandwidth; grid (channels, positions and then rows of z,
// updates). Convolution: a thread takes kWidth channels along kConvRows positions. Beside it the
// largest |z| is found. Bound by memory.
template <int kWidth, typename A>
__global__ void __launch_bounds__(kConvThreads)
    ConvolveKernel(const __grid_constant__ UpdateBatch batch, const float* conv,
                   int64_t conv_stride, int64_t conv_blocks) {
  LetNextStart();
  WaitForPrior();
  if (blockIdx.x >= conv_blocks) {
    return FindLargestZ<kWidth, A>(batch, (blockIdx.x - conv_blocks) * gridDim.y + blockIdx.y);
  }
  const UpdateTask& task = batch.tasks[blockIdx.z];
  const int64_t channel = (int64_t{blockIdx.y} * kConvThreads + threadIdx.x) * kWidth;
  const int64_t first = int64_t{blockIdx.x} * kConvRows;
  if (channel >= batch.d || first >= task.rows) return;

  float taps[kTaps][kWidth];
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
#pragma unroll
    for (int j = 0; j < kTaps; ++j) taps[j][i] = conv[(channel + i) * conv_stride + j];
  }
  const auto row = [&](int64_t p) {
    if (p < 0 || p >= task.rows) return Floats<kWidth>{};
    return LoadFloats<kWidth>(static_cast<const A*>(task.target) + p * task.target_stride +
                              channel);
  };
  A* out = static_cast<A*>(batch.convolved) + task.first_row * batch.d + channel;
  // All rows at once: their loads are under way together.
  Floats<kWidth> rows[kConvRows + kTaps - 1];
#pragma unroll
  for (int j = 0; j < kConvRows + kTaps - 1; ++j) rows[j] = row(first + j - kTaps / 2);
#pragma unroll
  for (int n = 0; n < kConvRows; ++n) {
    Floats<kWidth> sum{};
#pragma unroll
    for (int j = 0; j < kTaps; ++j) {
#pragma unroll
      for (int i = 0; i < kWidth; ++i) sum.at[i] += taps[j][i] * rows[n + j].at[i];
    }
    if (first + n < task.rows) StoreFloats(out + (first + n) * batch.d, sum);
  }
}

// The largest |v|: blocks take an update's rows as one array; grid (blocks, updates). Bound by
// latency: v was just written.
template <int kWidth, typename A>
__global__ void __launch_bounds__(kUpdateThreads)
    MaximaKernel(const __grid_constant__ UpdateBatch batch) {
  LetNextStart();
  WaitForPrior();
  const UpdateTask& task = batch.tasks[blockIdx.y];
  if (task.controlled()) return;
  const A* values = static_cast<const A*>(batch.values) + task.first_row * batch.d;
  const int64_t first = int64_t{blockIdx.x} * kUpdateThreads + threadIdx.x;
  AddMaximum<kUpdateThreads>(
      MaxBits<kWidth>(values, first, int64_t{gridDim.x} * kUpdateThreads, task.rows * batch.d),
      &batch.control->maxima[blockIdx.y][0]);
}

int64_t MostRows(const UpdateBatch& batch) {
  int64_t rows = 0;
  for (int i = 0; i < batch.count; ++i) rows = std::max(rows, batch.tasks[i].rows);
  return rows;
}

template <int kWidth, typename A>
void LaunchConvolve(const UpdateBatch& batch, const Matrix& conv, const LaunchContext& context) {
  constexpr int64_t kChannels = int64_t{kConvThreads} * kWidth;
  const int64_t rows = MostRows(batch), columns = (batch.d + kChannels - 1) / kChannels;
  const int64_t conv_blocks = (rows + kConvRows - 1) / kConvRows;
  // Only x takes the blocks of any number of rows.
  const dim3 grid(static_cast<unsigned>(conv_blocks + (rows + columns - 1) / columns),
                  static_cast<unsigned>(columns), static_cast<unsigned>(batch.count));
  Launch(context, "ConvolveTargets", ConvolveKernel<kWidth, A>, grid, dim3(kConvThreads), 0, batch,
         static_cast<const float*>(conv.data), conv.stride, conv_blocks);
}

template <int kWidth, typename A>
void LaunchMaxima(const UpdateBatch& batch, const LaunchContext& context) {
  const int64_t blocks = std::min<int64_t>(MostRows(batch), int64_t{2} * context.num_sms);
  Launch(context, "FindMaxima", MaximaKernel<kWidth, A>,
         dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(batch.count)),
         dim3(kUpdateThreads), 0, batch);
}

}  // namespace

void ConvolveTargets(const UpdateBatch& batch, const Matrix& conv, const LaunchContext& context) {
  bool vectors = batch.d % 8 == 0 && batch.f % 8 == 0;
  for (int i = 0; i < batch.count; ++i) {
    vectors = vectors && IsAligned(batch.tasks[i].target, batch.tasks[i].target_stride) &&
              IsAligned(batch.tasks[i].z, batch.tasks[i].z_stride);
  }
  if (batch.dtype == DType::kBF16) {
    vectors ? LaunchConvolve<8, __nv_bfloat16>(batch, conv, context)
            : LaunchConvolve<1, __nv_bfloat16>(batch, conv, context);
  } else {
    vectors ? LaunchConvolve<8, float>(batch, conv, context)
            : LaunchConvolve<1, float>(batch, conv, context);
  }
}

void FindMaxima(const UpdateBatch& batch, const LaunchContext& context) {
  const bool vectors = batch.d % 8 == 0;
  if (batch.dtype == DType::kBF16) {
    vectors ? LaunchMaxima<8, __nv_bfloat16>(batch, context)
            : LaunchMaxima<1, __nv_bfloat16>(batch, context);
  } else {
    vectors ? LaunchMaxima<8, float>(batch, context) : LaunchMaxima<1, float>(batch, context);
  }
}

}  // namespace mneme::cuda
