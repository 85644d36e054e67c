#ifndef MNEME_KERNELS_CUDA_MEMORY_H_
#define MNEME_KERNELS_CUDA_MEMORY_H_

// Owners of what the CUDA runtime hands out.

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cuda/launch.h"

namespace mneme::cuda {

struct FreeDevice {
  void operator()(void* data) const { cudaFree(data); }
};
struct FreePinned {
  void operator()(void* data) const { cudaFreeHost(data); }
};
struct DestroyStream {
  void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
};
struct DestroyEvent {
  void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
};
struct DestroyGraph {
  void operator()(cudaGraph_t graph) const { cudaGraphDestroy(graph); }
};
struct DestroyGraphExec {
  void operator()(cudaGraphExec_t graph) const { cudaGraphExecDestroy(graph); }
};

using DeviceMemory = std::unique_ptr<void, FreeDevice>;
using PinnedMemory = std::unique_ptr<void, FreePinned>;  // host memory that kernels can read too
using StreamHandle = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, DestroyStream>;
using EventHandle = std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, DestroyEvent>;
using GraphHandle = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, DestroyGraph>;
using GraphExecHandle = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, DestroyGraphExec>;

// INTERNAL, with `what` and the reason, unless `error` is success.
absl::Status ToStatus(cudaError_t error, const char* what);

// At least one byte. RESOURCE_EXHAUSTED, with the figures, if there is not that much.
absl::StatusOr<DeviceMemory> AllocateDevice(int64_t bytes);
absl::StatusOr<PinnedMemory> AllocatePinned(int64_t bytes);
// Device memory full of zeros.
absl::StatusOr<DeviceMemory> AllocateZeroed(int64_t bytes);

absl::StatusOr<StreamHandle> CreateStreamHandle();
absl::StatusOr<EventHandle> CreateEventHandle(unsigned flags);

// Device memory that grows to the largest size asked for, by doubling at least. What it held is
// lost by growing, but the old memory stays: work that was planned before may use it.
class Scratch {
 public:
  // Null, with the failure latched, if the device has not that much.
  void* Get(int64_t bytes, ErrorLatch* errors);

 private:
  std::vector<DeviceMemory> memory_;  // the last one is in use
  int64_t bytes_ = 0;
};

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_MEMORY_H_
