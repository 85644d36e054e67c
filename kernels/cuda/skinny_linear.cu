#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/weight_stream.cuh"

namespace mneme::cuda {
namespace {

// Where the sums go.
template <typename Out>
struct LinearOut {
  Out* data;
  int64_t stride;
  const float* bias;
  bool accumulate;

  __device__ void operator()(const StreamGroup&, int column, int row, float sum) const {
    Out* out = data + row * stride + column;
    if (bias != nullptr) sum += bias[column];
    if (accumulate) sum += ToFloat(*out);
    *out = FromFloat<Out>(sum);
  }
};

// Threads and data: weight_stream.cuh. Bound by reading the weights once.
template <typename Out>
__global__ void __launch_bounds__(StreamThreads<__nv_bfloat16>(), StreamMinBlocks<__nv_bfloat16>())
    SkinnyLinearKernel(const char* weights, int rows, const __grid_constant__ StreamPlan plan,
                       const __grid_constant__ StreamArgs args,
                       const __grid_constant__ LinearOut<Out> out) {
  LetNextStart();
  extern __shared__ __align__(128) char shared_bytes[];
  auto* shared = reinterpret_cast<StreamShared<__nv_bfloat16, 1>*>(shared_bytes);
  if (threadIdx.x == 0) {
    shared->plan = plan;
    shared->groups[0] = {weights, 0, rows};
  }
  __syncthreads();
  WeightStream<__nv_bfloat16, 1, LinearOut<Out>>(shared, args, out).Run();
}

template <typename Out>
void LaunchSkinny(const Matrix& x, const void* weight, const void* bias, bool accumulate,
                  const Matrix& out, void* workspace, const LaunchContext& context) {
  const int rows = static_cast<int>(x.rows);
  const StreamArgs args = MakeStreamArgs(out.cols, x, workspace);
  const StreamPlan plan =
      MakeStreamPlan(1, args.n, args.k, rows, WeightMath<__nv_bfloat16>::kRowPadBytes,
                     StreamHeadBytes<__nv_bfloat16, 1>(), context.num_sms);
  const LinearOut<Out> target = {static_cast<Out*>(out.data), out.stride,
                                 static_cast<const float*>(bias), accumulate};
  LaunchStream<__nv_bfloat16, SkinnyLinearKernel<Out>>(
      context, "SkinnyLinear", static_cast<const char*>(weight), rows, plan, args, target);
}

}  // namespace

bool IsSkinny(const Matrix& x, const Matrix& out) {
  return x.rows >= 1 && x.rows <= kSkinnyRows && CanStreamRows(x) && out.cols <= INT32_MAX / 2 &&
         (out.dtype == DType::kBF16 || out.dtype == DType::kF32) &&
         StreamFits(1, out.cols, static_cast<int>(x.cols), static_cast<int>(x.rows));
}

int64_t SkinnyWorkspaceBytes() { return kStreamWorkspaceBytes; }

void SkinnyLinear(Matrix x, const void* weight, const void* bias, bool accumulate, Matrix out,
                  void* workspace, const LaunchContext& context) {
  if (out.cols == 0) return;
  if (out.dtype == DType::kBF16) {
    LaunchSkinny<__nv_bfloat16>(x, weight, bias, accumulate, out, workspace, context);
  } else {
    LaunchSkinny<float>(x, weight, bias, accumulate, out, workspace, context);
  }
}

}  // namespace mneme::cuda
