#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/row_math.cuh"
#include "kernels/cuda/weight_stream.cuh"

namespace mneme::cuda {
namespace {

// Where the sums go.
template <typename Out>
struct LinearOut {
  static constexpr bool kGated = false;

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

struct SwiGluOut {
  static constexpr bool kGated = true;

  __nv_bfloat16* data;
  int64_t stride;

  __device__ void operator()(const StreamGroup&, int column, int row, float gate, float up) const {
    data[row * stride + column] = FromFloat<__nv_bfloat16>(SwiGluOf(gate, up));
  }
};

// Threads and data: weight_stream.cuh. Bound by reading the weights once.
template <typename Store, typename Norm>
__global__ void __launch_bounds__(StreamThreads<__nv_bfloat16>(), StreamMinBlocks<__nv_bfloat16>())
    SkinnyLinearKernel(const char* weights, int rows, const __grid_constant__ StreamPlan plan,
                       const __grid_constant__ StreamArgs args, const __grid_constant__ Store store,
                       const __grid_constant__ Norm norm) {
  LetNextStart();
  extern __shared__ __align__(128) char shared_bytes[];
  auto* shared = reinterpret_cast<StreamShared<__nv_bfloat16, 1>*>(shared_bytes);
  if (threadIdx.x == 0) {
    shared->plan = plan;
    shared->groups[0] = {weights, 0, rows};
  }
  __syncthreads();
  WeightStream<__nv_bfloat16, 1, Store, Norm>(shared, args, store, norm).Run();
}

// weight [n, k].
template <typename Store, typename Norm>
void LaunchSkinny(const Matrix& x, const void* weight, int64_t n, const Store& store,
                  const Norm& norm, void* workspace, const LaunchContext& context) {
  const int rows = static_cast<int>(x.rows);
  const StreamArgs args = MakeStreamArgs(n, x, workspace);
  const StreamPlan plan =
      MakeStreamPlan(1, args.n, args.k, rows, WeightMath<__nv_bfloat16>::kRowPadBytes,
                     StreamHeadBytes<__nv_bfloat16, 1>(), context.num_sms, Store::kGated);
  LaunchStream<__nv_bfloat16, SkinnyLinearKernel<Store, Norm>>(
      context, "SkinnyLinear", static_cast<const char*>(weight), rows, plan, args, store, norm);
}

template <typename Out>
LinearOut<Out> OutOf(const Matrix& out, const void* bias, bool accumulate) {
  return {static_cast<Out*>(out.data), out.stride, static_cast<const float*>(bias), accumulate};
}

StreamNorm NormOf(const RowNorm& norm) {
  return {static_cast<const float*>(norm.weight), norm.epsilon};
}

}  // namespace

bool IsSkinny(const Matrix& x, const Matrix& out) {
  return x.rows >= 1 && x.rows <= kSkinnyRows && CanStreamRows(x) && out.cols <= INT32_MAX / 2 &&
         (out.dtype == DType::kBF16 || out.dtype == DType::kF32) &&
         StreamFits(1, out.cols, static_cast<int>(x.cols), static_cast<int>(x.rows));
}

bool CanNormSkinny(const Matrix& x, const RowNorm& norm, const Matrix& out) {
  return IsSkinny(x, out) && x.cols <= kMaxNormColumns &&
         SliceColumns(static_cast<int>(x.cols), static_cast<int>(x.rows)) >= x.cols &&
         reinterpret_cast<uintptr_t>(norm.weight) % 16 == 0;
}

int64_t SkinnyWorkspaceBytes() { return kStreamWorkspaceBytes; }

void SkinnyLinear(Matrix x, const void* weight, const void* bias, bool accumulate, Matrix out,
                  void* workspace, const LaunchContext& context) {
  if (out.cols == 0) return;
  if (out.dtype == DType::kBF16) {
    LaunchSkinny(x, weight, out.cols, OutOf<__nv_bfloat16>(out, bias, accumulate), NoNorm{},
                 workspace, context);
  } else {
    LaunchSkinny(x, weight, out.cols, OutOf<float>(out, bias, accumulate), NoNorm{}, workspace,
                 context);
  }
}

void SkinnyNormLinear(Matrix x, const RowNorm& norm, const void* weight, const void* bias,
                      Matrix out, void* workspace, const LaunchContext& context) {
  if (out.cols == 0) return;
  LaunchSkinny(x, weight, out.cols, OutOf<__nv_bfloat16>(out, bias, /*accumulate=*/false),
               NormOf(norm), workspace, context);
}

void SkinnyLinearSwiGlu(Matrix x, const RowNorm& norm, const void* weight, Matrix z,
                        void* workspace, const LaunchContext& context) {
  if (z.cols == 0) return;
  const SwiGluOut store = {static_cast<__nv_bfloat16*>(z.data), z.stride};
  if (norm.weight == nullptr) {
    LaunchSkinny(x, weight, 2 * z.cols, store, NoNorm{}, workspace, context);
  } else {
    LaunchSkinny(x, weight, 2 * z.cols, store, NormOf(norm), workspace, context);
  }
}

}  // namespace mneme::cuda
