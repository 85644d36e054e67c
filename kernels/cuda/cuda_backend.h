#ifndef MNEME_KERNELS_CUDA_CUDA_BACKEND_H_
#define MNEME_KERNELS_CUDA_CUDA_BACKEND_H_

// The CUDA backend as its shared library offers it. Programs do not link the library: they load it
// when they are asked to (kernels/backend_library.h), so that they start where CUDA is absent.

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "base/dtype.h"
#include "kernels/backend.h"
#include "kernels/delta_type.h"

namespace mneme {

struct CudaBackendOptions {
  int device = 0;
  // Weights, activations and the KV cache: kBF16 (products accumulate in float32), or kF32 without
  // TF32, for comparisons.
  DType dtype = DType::kBF16;
  // What updates of ΔW accumulate in: kFloat32, or kBFloat16 with stochastic rounding, so that
  // small updates survive on average.
  DeltaType delta_accumulate = DeltaType::kBFloat16;
  // What DownProject reads: the accumulated values themselves where it is the same type, else a
  // copy that each update rebuilds; kFp8E4M3 with one float32 scale a row of ΔW. Float32 only where
  // they accumulate in it.
  DeltaType delta_read = DeltaType::kBFloat16;
};

// FAILED_PRECONDITION, with what to do, if there is no driver, no such device, or one that this
// library holds no code for; INVALID_ARGUMENT for types that do not go together.
absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(const CudaBackendOptions& options);

// What the shared library offers, found through its only exported symbol: a function without
// arguments that returns this. `version` stays the first member, so that any version can be asked.
struct CudaLibrary {
  const char* version;
  absl::StatusOr<std::unique_ptr<Backend>> (*create)(const CudaBackendOptions& options);
};
using CudaLibraryEntry = const CudaLibrary* (*)();
inline constexpr char kCudaLibraryEntryName[] = "mneme_cuda_library";

}  // namespace mneme

#endif  // MNEME_KERNELS_CUDA_CUDA_BACKEND_H_
