#ifndef MNEME_BENCH_OPTIONS_H_
#define MNEME_BENCH_OPTIONS_H_

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "bench/workload.h"
#include "engine/engine.h"
#include "kernels/cuda/cuda_backend.h"

namespace mneme {

// What is to be measured.
struct BenchOptions {
  std::filesystem::path model_dir;  // one of these two is given
  std::string random_weights;       // a named shape
  std::optional<int64_t> chunk;     // C; absent: the checkpoint's, or 512 for a named shape
  int64_t prefill_tokens = 2048;
  int64_t decode_tokens = 64;
  int64_t context = 0;  // position where decode begins, at least prefill_tokens; 0: there
  int64_t step_tokens = EngineOptions{}.max_step_tokens;
  int repeat = 3;
  int threads = 0;  // 0: as many as this process may run on
  DType cpu_dtype = DType::kF32;
  std::optional<CudaBackendOptions> cuda;  // absent: the CPU
  std::vector<Workload> workloads;         // of a table; empty: a comparison with matmul alone
  bool precision = false;                  // compare what fast weights are kept in, on CUDA
  std::filesystem::path text_file;         // read for that; empty: random tokens
  uint64_t seed = 1;                       // of random weights and tokens
  std::filesystem::path json_file;         // empty: none

  int64_t decode_begin() const { return context > 0 ? context : prefill_tokens; }
};

}  // namespace mneme

#endif  // MNEME_BENCH_OPTIONS_H_
