// In place of flashinfer/cutlass_utils.cuh (whose guard it takes), which includes much more of
// CUTLASS than attention needs.
#ifndef FLASHINFER_CUTLASS_UTILS_CUH_
#define FLASHINFER_CUTLASS_UTILS_CUH_

#include <cuda_bf16.h>

#include "cute/tensor.hpp"
#include "cutlass/cutlass.h"
#include "cutlass/numeric_types.h"

namespace flashinfer {

template <typename T>
struct cutlass_dtype {
  using type = T;
};
template <>
struct cutlass_dtype<nv_bfloat16> {
  using type = cutlass::bfloat16_t;
};
template <typename T>
using cutlass_dtype_t = typename cutlass_dtype<T>::type;

}  // namespace flashinfer

#endif  // FLASHINFER_CUTLASS_UTILS_CUH_
