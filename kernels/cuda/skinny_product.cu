#include "kernels/cuda/skinny_product.h"

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/row_math.cuh"
#include "kernels/cuda/row_view.cuh"
#include "kernels/cuda/weight_stream.cuh"

namespace mneme::cuda {
namespace {

using BFloat16 = __nv_bfloat16;

constexpr int kHeadBytes = (static_cast<int>(sizeof(StreamShared)) + 127) / 128 * 128;

// Where the sums of a product go.
struct ProductOut {
  static constexpr bool kFused = true, kHasAside = false;

  StreamNorm row_norm;
  void* data;
  int64_t stride;
  const float* bias;
  bool is_float, accumulate, is_gated;

  __device__ StreamNorm norm() const { return row_norm; }
  __device__ bool gated() const { return is_gated; }

  __device__ void operator()(const StreamGroup&, int column, int row, float sum) const {
    if (bias != nullptr) sum += bias[column];
    if (is_float) {
      Put(static_cast<float*>(data), column, row, sum);
    } else {
      Put(static_cast<BFloat16*>(data), column, row, sum);
    }
  }
  __device__ void StoreGated(int column, int row, float gate, float up) const {
    static_cast<BFloat16*>(data)[row * stride + column] = FromFloat<BFloat16>(SwiGluOf(gate, up));
  }

 private:
  template <typename T>
  __device__ void Put(T* out, int column, int row, float sum) const {
    out += row * stride + column;
    if (accumulate) sum += ToFloat(*out);
    *out = FromFloat<T>(sum);
  }
};

// Threads and data: weight_stream.cuh. Bound by reading the weights once.
__global__ void __launch_bounds__(kStreamThreads, 1)
    SkinnyKernel(const __grid_constant__ StreamPlan plan, const __grid_constant__ StreamRing ring,
                 const __grid_constant__ StreamArgs args, const __grid_constant__ StreamGroup group,
                 const __grid_constant__ ProductOut out) {
  LetNextStart();
  extern __shared__ __align__(128) char shared_bytes[];
  WeightStream<BFloat16, ProductOut> stream(reinterpret_cast<StreamShared*>(shared_bytes),
                                            shared_bytes + kHeadBytes, ring);
  stream.Run({plan, args, &group, out});
}

int Columns(const SkinnyProduct& product) {
  return static_cast<int>(product.gated ? 2 * product.out.cols : product.out.cols);
}

}  // namespace

int64_t SkinnyWorkspaceBytes() { return kStreamWorkspaceBytes; }

bool IsSkinny(const SkinnyProduct& product) {
  const Matrix &x = product.x, &out = product.out;
  if (x.rows < 1 || x.rows > kSkinnyRows || !CanStreamRows(x) || out.cols > INT32_MAX / 4 ||
      (out.dtype != DType::kBF16 && (out.dtype != DType::kF32 || product.gated))) {
    return false;
  }
  const int k = static_cast<int>(x.cols), rows = static_cast<int>(x.rows);
  if (product.norm.weight != nullptr &&
      (k > kMaxNormColumns || SliceColumns(k, rows) < k || !IsAligned16(product.norm.weight) ||
       (product.norm.wanted && !HasAlignedRows(product.h)))) {
    return false;
  }
  return StreamFits(1, Columns(product), k, rows);
}

void RunSkinny(const SkinnyProduct& product, void* workspace, const LaunchContext& context) {
  if (product.out.cols == 0) return;
  const int rows = static_cast<int>(product.x.rows);
  const StreamArgs args = MakeStreamArgs(Columns(product), product.x, workspace);
  const StreamPlan plan =
      MakeStreamPlan(1, args.n, args.k, rows, WeightMath<BFloat16>::kRowPadBytes, kHeadBytes,
                     context.num_sms, product.gated);
  const StreamRing ring = MakeStreamRing(kHeadBytes, rows * plan.x_row_bytes, plan.tile_rows);
  const StreamGroup group = {static_cast<const char*>(product.weight), 0, rows};
  StreamNorm norm = {static_cast<const float*>(product.norm.weight), product.norm.epsilon};
  if (norm.weight != nullptr && product.norm.wanted) {
    norm.rows = static_cast<BFloat16*>(product.h.data);
    norm.rows_stride = product.h.stride;
  }
  const ProductOut out = {.row_norm = norm,
                          .data = product.out.data,
                          .stride = product.out.stride,
                          .bias = static_cast<const float*>(product.bias),
                          .is_float = product.out.dtype == DType::kF32,
                          .accumulate = product.accumulate,
                          .is_gated = product.gated};
  LaunchStream<SkinnyKernel>(context, "SkinnyProduct", plan, ring, args, group, out);
}

}  // namespace mneme::cuda
