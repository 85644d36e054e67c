#ifndef MNEME_KERNELS_CUDA_CONVERT_H_
#define MNEME_KERNELS_CUDA_CONVERT_H_

#include <cstdint>

#include "base/dtype.h"
#include "kernels/backend.h"
#include "kernels/cuda/launch.h"

namespace mneme::cuda {

// to[i] = from[i], rounded to nearest; `to` is float32 or bf16, `from` of any dtype.
void ConvertElements(const void* from, DType from_dtype, void* to, DType to_dtype, int64_t count,
                     const LaunchContext& context);

// out[r] += bias: out [m, n] float32 or bf16, bias float32 [n].
void AddBias(const float* bias, Matrix out, const LaunchContext& context);

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_CONVERT_H_
