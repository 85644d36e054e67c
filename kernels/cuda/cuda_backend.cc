#include "kernels/cuda/cuda_backend.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/version.h"
#include "kernels/cuda/cuda_stream.h"
#include "kernels/cuda/delta.h"
#include "kernels/cuda/memory.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/sample.h"
#include "kernels/cuda/upload.h"
#include "kernels/host_memory.h"
#include "kernels/pack_parts.h"

namespace mneme {
namespace {

using cuda::DeviceMemory;
using cuda::PinnedMemory;
using cuda::ToStatus;

// Rows that a repeated step may have: finer where a row more costs more.
constexpr std::array<int64_t, 20> kRepeatableRows = {1,  2,  4,  8,  12,  16,  24,  32,  40,  48,
                                                     56, 64, 80, 96, 112, 128, 160, 192, 224, 256};

// Left for what comes with use: recorded steps, kernels that are loaded when they are first wanted,
// larger plans of attention, trials of products.
constexpr int64_t kReserveBytes = int64_t{512} << 20;

const char* ShortNameOf(DType dtype) { return dtype == DType::kF32 ? "float32" : "bf16"; }

absl::Status CheckOptions(const CudaBackendOptions& options) {
  if (options.dtype != DType::kF32 && options.dtype != DType::kBF16) {
    return absl::InvalidArgumentError(
        absl::StrCat("the CUDA backend computes in F32 or BF16, not ", NameOf(options.dtype)));
  }
  if (options.delta_accumulate == DeltaType::kFp8E4M3) {
    return absl::InvalidArgumentError(
        "fast weights cannot accumulate in fp8_e4m3, which small updates do not survive; use "
        "fp32 or bf16");
  }
  if (options.delta_read == DeltaType::kFloat32 &&
      options.delta_accumulate != DeltaType::kFloat32) {
    return absl::InvalidArgumentError(
        absl::StrCat("fast weights that accumulate in ", NameOf(options.delta_accumulate),
                     " cannot be read in fp32; use bf16 or fp8_e4m3"));
  }
  return absl::OkStatus();
}

// The device's properties; FAILED_PRECONDITION if it cannot be used.
absl::StatusOr<cudaDeviceProp> FindDevice(int device) {
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess) {
    return absl::FailedPreconditionError(absl::StrCat(
        "no CUDA device can be used: ", cudaGetErrorString(error), " (", cudaGetErrorName(error),
        "). Install an NVIDIA driver for CUDA 13 and make the device visible, or use the CPU "
        "backend"));
  }
  if (device < 0 || device >= count) {
    return absl::FailedPreconditionError(
        absl::StrCat("there is no CUDA device ", device, ": ", count, " can be seen"));
  }
  cudaDeviceProp properties;
  MNEME_RETURN_IF_ERROR(
      ToStatus(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties"));
  if (properties.major != 9 || properties.minor != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("CUDA device ", device, " (", properties.name, ") has compute capability ",
                     properties.major, ".", properties.minor,
                     "; this library holds code for 9.0 alone (H100, H200). Use the CPU backend"));
  }
  return properties;
}

class CudaBackend : public Backend {
 public:
  CudaBackend(const CudaBackendOptions& options, const cudaDeviceProp& properties)
      : options_(options), name_(properties.name), num_sms_(properties.multiProcessorCount) {}

  absl::Status Start() {
    MNEME_RETURN_IF_ERROR(UseDevice());
    MNEME_ASSIGN_OR_RETURN(uploader_, cuda::Uploader::Create(num_sms_));
    return absl::OkStatus();
  }

  std::string description() const override {
    int version = 0;
    cudaRuntimeGetVersion(&version);
    return absl::StrCat("cuda (", name_, ", ", ShortNameOf(options_.dtype), ", ΔW accumulates in ",
                        NameOf(options_.delta_accumulate), ", read in ",
                        NameOf(options_.delta_read), ", CUDA ", version / 1000, ".",
                        version % 1000 / 10, ")");
  }
  DType activation_dtype() const override { return options_.dtype; }
  DType kv_dtype() const override { return options_.dtype; }
  int64_t DeltaBytes(int64_t d, int64_t f) const override {
    const cuda::DeltaLayout layout{options_.delta_accumulate, options_.delta_read, d, f};
    return layout.total_bytes();
  }
  BackendLimits limits() const override {
    return {.head_dim = cuda::kMaxHeadDim, .vocab_size = cuda::kMaxSampledVocab};
  }
  bool commits_on_touch() const override { return false; }
  int64_t FreeBytes() const override;
  int64_t RepeatableRows(int64_t rows) const override {
    const auto found = std::lower_bound(kRepeatableRows.begin(), kRepeatableRows.end(), rows);
    return found == kRepeatableRows.end() ? 0 : *found;
  }

  absl::StatusOr<DeviceBuffer> Allocate(int64_t bytes) override;
  absl::StatusOr<DeviceBuffer> AllocateHost(int64_t bytes) override;
  absl::StatusOr<std::unique_ptr<PackedMatrix>> Pack(absl::Span<const HostTensor> parts) override;
  absl::StatusOr<std::unique_ptr<Stream>> CreateStream() override {
    return cuda::CudaStream::Create(options_, num_sms_);
  }

 private:
  // The device is a property of each thread.
  absl::Status UseDevice() const {
    return ToStatus(cudaSetDevice(options_.device), "cudaSetDevice");
  }

  const CudaBackendOptions options_;
  const std::string name_;
  const int num_sms_;
  std::unique_ptr<cuda::Uploader> uploader_;
};

int64_t CudaBackend::FreeBytes() const {
  size_t free_bytes = 0, total_bytes = 0;
  const bool known = UseDevice().ok() && cudaMemGetInfo(&free_bytes, &total_bytes) == cudaSuccess;
  return known ? std::max<int64_t>(static_cast<int64_t>(free_bytes) - kReserveBytes, 0) : 0;
}

absl::StatusOr<DeviceBuffer> CudaBackend::Allocate(int64_t bytes) {
  MNEME_RETURN_IF_ERROR(UseDevice());
  MNEME_ASSIGN_OR_RETURN(DeviceMemory memory, cuda::AllocateDevice(bytes));
  return DeviceBuffer(memory.release(), bytes, [device = options_.device](void* data) {
    cudaSetDevice(device);
    cudaFree(data);
  });
}

absl::StatusOr<DeviceBuffer> CudaBackend::AllocateHost(int64_t bytes) {
  // Pages are locked one by one until the host has none left: it is asked first.
  const int64_t available_bytes = AvailableHostBytes();
  if (bytes < 0 || bytes > available_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "cannot allocate ", bytes, " bytes of the host: ", available_bytes, " are available"));
  }
  MNEME_RETURN_IF_ERROR(UseDevice());
  MNEME_ASSIGN_OR_RETURN(PinnedMemory memory, cuda::AllocatePinned(bytes));
  return DeviceBuffer(memory.release(), bytes, [device = options_.device](void* data) {
    cudaSetDevice(device);
    cudaFreeHost(data);
  });
}

absl::StatusOr<std::unique_ptr<PackedMatrix>> CudaBackend::Pack(
    absl::Span<const HostTensor> parts) {
  MNEME_RETURN_IF_ERROR(CheckPackParts(parts));
  MNEME_RETURN_IF_ERROR(UseDevice());
  int64_t rows = 0;
  for (const HostTensor& part : parts) rows += part.rows;
  const int64_t cols = parts[0].cols;
  const int64_t row_bytes = cols * SizeOf(options_.dtype);
  MNEME_ASSIGN_OR_RETURN(DeviceMemory memory, cuda::AllocateDevice(rows * row_bytes));
  char* to = static_cast<char*>(memory.get());
  for (const HostTensor& part : parts) {
    MNEME_RETURN_IF_ERROR(uploader_->Upload(part, options_.dtype, to));
    to += part.rows * row_bytes;
  }
  return std::make_unique<cuda::CudaPackedMatrix>(std::move(memory), options_.dtype, rows, cols);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(const CudaBackendOptions& options) {
  MNEME_RETURN_IF_ERROR(CheckOptions(options));
  MNEME_ASSIGN_OR_RETURN(const cudaDeviceProp properties, FindDevice(options.device));
  auto backend = std::make_unique<CudaBackend>(options, properties);
  MNEME_RETURN_IF_ERROR(backend->Start());
  return backend;
}

// The library's only exported symbol (kCudaLibraryEntryName).
extern "C" __attribute__((visibility("default"))) const CudaLibrary* mneme_cuda_library() {
  static constexpr CudaLibrary library{kVersion, &CreateCudaBackend};
  return &library;
}

}  // namespace mneme
