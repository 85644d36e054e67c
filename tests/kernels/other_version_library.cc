// A libmneme_cuda.so of another version.

#include <cstdlib>

#include "kernels/cuda/cuda_backend.h"

namespace mneme {

absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(const CudaBackendOptions&) {
  std::abort();  // a program of this version must not come here
}

extern "C" const CudaLibrary* mneme_cuda_library() {
  static constexpr CudaLibrary library{"0.0.0-other", &CreateCudaBackend};
  return &library;
}

}  // namespace mneme
