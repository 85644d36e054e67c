#ifndef MNEME_KERNELS_BACKEND_LIBRARY_H_
#define MNEME_KERNELS_BACKEND_LIBRARY_H_

// Backends that come as shared libraries of their own, loaded when they are asked for: a program
// starts where their device, driver and libraries are absent.

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cuda/cuda_backend.h"

namespace mneme {

// Loads libmneme_cuda.so and creates its backend. Looks into the directory of the running program,
// then into `../lib` beside it, then where the system looks for libraries. Once loaded, the library
// stays for the life of the process. Thread-safe.
//
// NOT_FOUND if there is no such library, or if it does not load (one that it needs is missing);
// FAILED_PRECONDITION if it is of another version than the program, or without a driver and a
// device that it runs on; INVALID_ARGUMENT as CreateCudaBackend.
absl::StatusOr<std::unique_ptr<Backend>> LoadCudaBackend(const CudaBackendOptions& options);

}  // namespace mneme

#endif  // MNEME_KERNELS_BACKEND_LIBRARY_H_
