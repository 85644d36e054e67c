#ifndef MNEME_BENCH_BENCH_BACKEND_H_
#define MNEME_BENCH_BENCH_BACKEND_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "bench/options.h"
#include "engine/loading/config.h"
#include "kernels/backend.h"

namespace mneme {

// The backend that `options` name; its own errors otherwise.
absl::StatusOr<std::unique_ptr<Backend>> MakeBenchBackend(const BenchOptions& options);

// Bytes of one layer's ΔW as DownProject reads it on that backend.
int64_t DeltaReadBytes(const BenchOptions& options, const ModelConfig& config);

}  // namespace mneme

#endif  // MNEME_BENCH_BENCH_BACKEND_H_
