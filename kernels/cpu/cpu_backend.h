#ifndef MNEME_KERNELS_CPU_CPU_BACKEND_H_
#define MNEME_KERNELS_CPU_CPU_BACKEND_H_

#include <memory>

#include "absl/status/statusor.h"
#include "base/dtype.h"
#include "kernels/backend.h"

namespace mneme {

struct CpuBackendOptions {
  // Element type of packed weights and of matmul inputs: kF32 or kBF16. Everything else, the
  // accumulation, the KV cache and ΔW included, is float32 in either case.
  DType matmul_dtype = DType::kF32;
  int threads = 0;  // 0: as many as this process may run on
};

// The host's processors as a device: oneDNN multiplies matrices, the rest is vectorised here.
// INVALID_ARGUMENT for a dtype that is not one of the two; FAILED_PRECONDITION if the processor
// has no bfloat16 instructions (AVX512_BF16 or AMX) and kBF16 is asked for.
absl::StatusOr<std::unique_ptr<Backend>> CreateCpuBackend(const CpuBackendOptions& options);

}  // namespace mneme

#endif  // MNEME_KERNELS_CPU_CPU_BACKEND_H_
