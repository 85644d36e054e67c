#include "kernels/cuda/launch.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace mneme::cuda {

void ErrorLatch::Check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // this call's failure is not the next one's
  Fail(absl::StrCat(what, ": ", cudaGetErrorString(error), " (", cudaGetErrorName(error), ")"));
}

void ErrorLatch::Check(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  Fail(absl::StrCat(what, ": ", cublasLtGetStatusString(status)));
}

void ErrorLatch::Fail(const std::string& message) {
  if (status_.ok()) status_ = absl::InternalError(absl::StrCat("CUDA failed: ", message));
}

}  // namespace mneme::cuda
