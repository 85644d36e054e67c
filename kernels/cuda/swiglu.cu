#include "kernels/cuda/row_math.cuh"
#include "kernels/cuda/row_view.cuh"
#include "kernels/cuda/rows.h"

namespace mneme::cuda {
namespace {

constexpr int64_t kMaxThreads = 256;

// kCount elements of a row a thread, as one access where that is 16 bytes. Bound by device memory:
// two reads and one write an element.
template <typename T, int kCount>
__global__ void __launch_bounds__(kMaxThreads)
    SwiGluKernel(RowView<const T> gate_up, int64_t f, RowView<T> z) {
  LetNextStart();
  WaitForPrior();
  const int64_t i = (int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * kCount;
  if (i >= f) return;
  const T* gate = gate_up[blockIdx.x] + i;
  const T* up = gate + f;
  T* out = z[blockIdx.x] + i;
  if constexpr (kCount == 1) {
    *out = FromFloat<T>(SwiGluOf(ToFloat(*gate), ToFloat(*up)));
  } else {
    const Vec16<T> g = LoadVec16(gate);
    const Vec16<T> u = LoadVec16(up);
    Vec16<T> result;
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      result.values[j] = FromFloat<T>(SwiGluOf(ToFloat(g.values[j]), ToFloat(u.values[j])));
    }
    StoreVec16(out, result);
  }
}

template <typename T, int kCount>
void SwiGluBy(Matrix gate_up, Matrix z, const LaunchContext& context) {
  const int64_t items = z.cols / kCount;
  const dim3 block = BlockFor(items, kMaxThreads);
  Launch(context, "SwiGlu", SwiGluKernel<T, kCount>, GridFor(z.rows, items, block.x), block, 0,
         ViewOf<const T>(gate_up), z.cols, ViewOf<T>(z));
}

}  // namespace

void SwiGlu(Matrix gate_up, Matrix z, const LaunchContext& context) {
  const bool vectors = IsVectors(gate_up, z.cols) && IsVectors(z, z.cols);
  ForActivationType(z.dtype, context, [&](auto type) {
    using T = decltype(type);
    if (vectors) return SwiGluBy<T, Vec16<T>::kCount>(gate_up, z, context);
    SwiGluBy<T, 1>(gate_up, z, context);
  });
}

}  // namespace mneme::cuda
