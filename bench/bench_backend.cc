#include "bench/bench_backend.h"

#include "kernels/backend_library.h"
#include "kernels/cpu/cpu_backend.h"

namespace mneme {
absl::StatusOr<std::unique_ptr<Backend>> MakeBenchBackend(const BenchOptions& options) {
  if (options.cuda) return LoadCudaBackend(*options.cuda);
  return CreateCpuBackend({.matmul_dtype = options.cpu_dtype, .threads = options.threads});
}

int64_t DeltaReadBytes(const BenchOptions& options, const ModelConfig& config) {
  const DeltaType type = options.cuda ? options.cuda->delta_read : DeltaType::kFloat32;
  const int64_t scale_bytes = type == DeltaType::kFp8E4M3 ? 4 * config.hidden_size : 0;
  return config.hidden_size * config.intermediate_size * SizeOf(type) + scale_bytes;
}

}  // namespace mneme
