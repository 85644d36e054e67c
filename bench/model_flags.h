#ifndef MNEME_BENCH_MODEL_FLAGS_H_
#define MNEME_BENCH_MODEL_FLAGS_H_

// Flags of the benchmark programs that say which model runs on what.

#include <CLI/CLI.hpp>
#include <string>

#include "bench/options.h"

namespace mneme {

// --model or --random_weights, --chunk, --seed.
void AddModelFlags(CLI::App& app, BenchOptions& options);

// What --backend and the flags of CUDA were given.
struct BackendFlags {
  std::string backend = "cpu";
  CudaBackendOptions cuda;

  // Once the command line is parsed.
  void ApplyTo(BenchOptions* options) const {
    if (backend == "cuda") options->cuda = cuda;
  }
};
// --backend and each backend's own. Both arguments must outlive the parsing.
void AddBackendFlags(CLI::App& app, BenchOptions& options, BackendFlags& flags);

}  // namespace mneme

#endif  // MNEME_BENCH_MODEL_FLAGS_H_
