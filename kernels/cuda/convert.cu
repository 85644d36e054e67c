#include <cuda_fp16.h>

#include <algorithm>

#include "kernels/cuda/convert.h"
#include "kernels/cuda/device.cuh"

namespace mneme::cuda {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ float Widen(float x) { return x; }
__device__ __forceinline__ float Widen(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float Widen(__half x) { return __half2float(x); }

// One element a thread, in a loop over the grid; bound by the bus that the elements come over.
template <typename From, typename To>
__global__ void ConvertKernel(const From* from, To* to, int64_t count) {
  LetNextStart();
  WaitForPrior();
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += step) {
    to[i] = FromFloat<To>(Widen(from[i]));
  }
}

// A column a thread, a row a block of the grid's second dimension. Small beside the product.
template <typename T>
__global__ void AddBiasKernel(const float* bias, T* out, int64_t rows, int64_t cols,
                              int64_t stride) {
  LetNextStart();
  WaitForPrior();
  const int64_t col = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (col >= cols) return;
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    T& element = out[row * stride + col];
    element = FromFloat<T>(ToFloat(element) + bias[col]);
  }
}

template <typename From, typename To>
void Convert(const void* from, void* to, int64_t count, const LaunchContext& context) {
  const int64_t blocks = std::min<int64_t>((count + kThreads - 1) / kThreads, 16384);
  Launch(context, "ConvertElements", ConvertKernel<From, To>, dim3(static_cast<unsigned>(blocks)),
         dim3(kThreads), 0, static_cast<const From*>(from), static_cast<To*>(to), count);
}

template <typename To>
void ConvertTo(const void* from, DType from_dtype, void* to, int64_t count,
               const LaunchContext& context) {
  switch (from_dtype) {
    case DType::kF32:
      return Convert<float, To>(from, to, count, context);
    case DType::kF16:
      return Convert<__half, To>(from, to, count, context);
    case DType::kBF16:
      return Convert<__nv_bfloat16, To>(from, to, count, context);
  }
}

template <typename T>
void AddBiasTo(const float* bias, Matrix out, const LaunchContext& context) {
  const dim3 grid(static_cast<unsigned>((out.cols + kThreads - 1) / kThreads),
                  static_cast<unsigned>(std::min<int64_t>(out.rows, 1024)));
  Launch(context, "AddBias", AddBiasKernel<T>, grid, dim3(kThreads), 0, bias,
         static_cast<T*>(out.data), out.rows, out.cols, out.stride);
}

}  // namespace

void ConvertElements(const void* from, DType from_dtype, void* to, DType to_dtype, int64_t count,
                     const LaunchContext& context) {
  if (to_dtype == DType::kF32) return ConvertTo<float>(from, from_dtype, to, count, context);
  ConvertTo<__nv_bfloat16>(from, from_dtype, to, count, context);
}

void AddBias(const float* bias, Matrix out, const LaunchContext& context) {
  if (out.dtype == DType::kF32) return AddBiasTo<float>(bias, out, context);
  AddBiasTo<__nv_bfloat16>(bias, out, context);
}

}  // namespace mneme::cuda
