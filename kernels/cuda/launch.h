#ifndef MNEME_KERNELS_CUDA_LAUNCH_H_
#define MNEME_KERNELS_CUDA_LAUNCH_H_

// How the files of this folder launch kernels and report failures.

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <string>
#include <utility>

#include "absl/status/status.h"

namespace mneme::cuda {

// The first failure of a stream; later ones are consequences. One thread.
class ErrorLatch {
 public:
  bool ok() const { return status_.ok(); }
  const absl::Status& status() const { return status_; }
  // `what` names the call for the message.
  void Check(cudaError_t error, const char* what);
  void Check(cublasStatus_t status, const char* what);
  void Fail(const std::string& message);

 private:
  absl::Status status_;
};

// Where kernels are launched. Passed by value; the latch outlives it.
struct LaunchContext {
  cudaStream_t stream = nullptr;
  ErrorLatch* errors = nullptr;
  int num_sms = 0;
};

// Launches `kernel` so that it may begin before the kernel in front of it has ended (programmatic
// dependent launch): every kernel of ours calls WaitForPrior() (device.cuh), on every path, before
// it writes anything and before it reads what kernels in front may still write. Two read more than
// weights before that: ApplyDeltas ΔW, and decode attention the step's arrays and older keys and
// values. They may, as long as
//   a step begins with a copy to the device, which waits for all kernels in front;
//   the last kernel of an update (FinishUpdates) lets the next start behind its own WaitForPrior;
//   blocks are written otherwise by copies alone.
// Does nothing once latched.
template <typename... Params, typename... Args>
void Launch(const LaunchContext& context, const char* name, void (*kernel)(Params...), dim3 grid,
            dim3 block, size_t shared_bytes, Args&&... args) {
  if (!context.errors->ok() || grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = context.stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  context.errors->Check(
      cudaLaunchKernelEx(&config, kernel, static_cast<Params>(std::forward<Args>(args))...), name);
}

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_LAUNCH_H_
