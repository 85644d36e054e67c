#ifndef MNEME_KERNELS_CUDA_ROW_VIEW_CUH_
#define MNEME_KERNELS_CUDA_ROW_VIEW_CUH_

// What the operations on rows share: views as kernels take them, which views are made of 16-byte
// vectors, and the choice of a kernel by dtype.

#include <algorithm>
#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.h"

namespace mneme::cuda {

template <typename T>
struct RowView {
  T* data;
  int64_t stride;  // elements

  __device__ __forceinline__ T* operator[](int64_t row) const { return data + row * stride; }
};

template <typename T>
RowView<T> ViewOf(const Matrix& m) {
  return {static_cast<T*>(m.data), m.stride};
}

inline bool IsAligned16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// Whether every row begins at a multiple of 16 bytes.
inline bool HasAlignedRows(const Matrix& m) {
  return IsAligned16(m.data) && (m.rows <= 1 || m.stride * SizeOf(m.dtype) % 16 == 0);
}

// Whether, besides, `cols` elements are whole vectors.
inline bool IsVectors(const Matrix& m, int64_t cols) {
  return HasAlignedRows(m) && cols * SizeOf(m.dtype) % 16 == 0;
}

inline int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A block of whole warps for `items`, at most `max_threads` (a multiple of 32).
inline dim3 BlockFor(int64_t items, int64_t max_threads) {
  return dim3(static_cast<unsigned>(std::clamp<int64_t>(CeilDiv(items, 32) * 32, 32, max_threads)));
}

// One block for each row and `threads` of its items.
inline dim3 GridFor(int64_t rows, int64_t items, int64_t threads) {
  return dim3(static_cast<unsigned>(rows), static_cast<unsigned>(CeilDiv(items, threads)));
}

// Calls run(T{}) with the type that activations of `dtype` have.
template <typename Run>
void ForActivationType(DType dtype, const LaunchContext& context, const Run& run) {
  switch (dtype) {
    case DType::kF32:
      return run(float{});
    case DType::kBF16:
      return run(__nv_bfloat16{});
    case DType::kF16:
      return context.errors->Fail("activations are float32 or bfloat16, not float16");
  }
}

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_ROW_VIEW_CUH_
