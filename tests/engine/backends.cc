#include "tests/engine/backends.h"

#include <array>
#include <optional>

#include "kernels/backend_library.h"
#include "kernels/cpu/cpu_backend.h"

namespace mneme {

std::string NameOf(BackendKind kind) {
  static constexpr std::array kNames = {"CpuFloat32",   "CpuBFloat16",      "CudaFloat32",
                                        "CudaBFloat16", "CudaFloat32Delta", "CudaFp8Delta"};
  return kNames[static_cast<size_t>(kind)];
}

absl::StatusOr<std::unique_ptr<Backend>> CreateTestBackend(BackendKind kind, int cpu_threads) {
  const DType dtype = IsFloat32(kind) ? DType::kF32 : DType::kBF16;
  if (!IsCuda(kind)) return CreateCpuBackend({.matmul_dtype = dtype, .threads = cpu_threads});
  CudaBackendOptions options = {.dtype = dtype};
  if (IsFloat32(kind)) options.delta_accumulate = options.delta_read = DeltaType::kFloat32;
  if (kind == BackendKind::kCudaFloat32Delta) options.delta_accumulate = DeltaType::kFloat32;
  if (kind == BackendKind::kCudaFp8Delta) options.delta_read = DeltaType::kFp8E4M3;
  return LoadCudaBackend(options);
}

const absl::Status& BackendStatus(BackendKind kind) {
  static std::array<std::optional<absl::Status>, 6> statuses;
  std::optional<absl::Status>& status = statuses[static_cast<size_t>(kind)];
  if (!status) status = CreateTestBackend(kind, 1).status();
  return *status;
}

}  // namespace mneme
