#include "kernels/cuda/memory.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace mneme::cuda {

absl::Status ToStatus(cudaError_t error, const char* what) {
  ErrorLatch latch;
  latch.Check(error, what);
  return latch.status();
}

absl::StatusOr<DeviceMemory> AllocateDevice(int64_t bytes) {
  void* data = nullptr;
  const cudaError_t error =
      bytes < 0 ? cudaErrorMemoryAllocation
                : cudaMalloc(&data, static_cast<size_t>(std::max<int64_t>(bytes, 1)));
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t free_bytes = 0, total_bytes = 0;
    cudaMemGetInfo(&free_bytes, &total_bytes);
    return absl::ResourceExhaustedError(absl::StrCat("cannot allocate ", bytes,
                                                     " bytes on the device: ", free_bytes, " of ",
                                                     total_bytes, " are free"));
  }
  MNEME_RETURN_IF_ERROR(ToStatus(error, "cudaMalloc"));
  return DeviceMemory(data);
}

absl::StatusOr<PinnedMemory> AllocatePinned(int64_t bytes) {
  void* data = nullptr;
  const cudaError_t error = cudaMallocHost(&data, static_cast<size_t>(std::max<int64_t>(bytes, 1)));
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot allocate ", bytes, " bytes of pinned host memory"));
  }
  MNEME_RETURN_IF_ERROR(ToStatus(error, "cudaMallocHost"));
  return PinnedMemory(data);
}

absl::StatusOr<DeviceMemory> AllocateZeroed(int64_t bytes) {
  MNEME_ASSIGN_OR_RETURN(DeviceMemory memory, AllocateDevice(bytes));
  MNEME_RETURN_IF_ERROR(
      ToStatus(cudaMemset(memory.get(), 0, static_cast<size_t>(bytes)), "cudaMemset"));
  MNEME_RETURN_IF_ERROR(ToStatus(cudaDeviceSynchronize(), "cudaDeviceSynchronize"));
  return memory;
}

absl::StatusOr<StreamHandle> CreateStreamHandle() {
  cudaStream_t stream = nullptr;
  MNEME_RETURN_IF_ERROR(ToStatus(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
                                 "cudaStreamCreateWithFlags"));
  return StreamHandle(stream);
}

absl::StatusOr<EventHandle> CreateEventHandle(unsigned flags) {
  cudaEvent_t event = nullptr;
  MNEME_RETURN_IF_ERROR(
      ToStatus(cudaEventCreateWithFlags(&event, flags), "cudaEventCreateWithFlags"));
  return EventHandle(event);
}

void* Scratch::Get(int64_t bytes, ErrorLatch* errors) {
  if (bytes > bytes_ || memory_.empty()) {
    bytes = std::max(bytes, 2 * bytes_);
    absl::StatusOr<DeviceMemory> grown = AllocateDevice(bytes);
    if (!grown.ok()) {
      errors->Fail(std::string(grown.status().message()));
      return nullptr;
    }
    memory_.push_back(*std::move(grown));
    bytes_ = bytes;
  }
  return memory_.back().get();
}

}  // namespace mneme::cuda
