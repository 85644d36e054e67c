#ifndef MNEME_BENCH_REPORT_H_
#define MNEME_BENCH_REPORT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bench/options.h"
#include "bench/stopwatch.h"

namespace mneme {

// One repeat of one phase (prefill or decode) with one setting of learning.
struct Sample {
  Duration engine;       // the session's steps
  Duration matmul;       // their matrix products alone (MatmulAlone)
  double gigaflops = 0;  // of those products, in 10⁹ operations
  int64_t chunks_closed = 0;
};

// The medians over the repeats. Shares are medians of the repeats' own shares: the two times of a
// repeat were taken under the same conditions.
struct Measurement {
  int64_t tokens = 0;
  double tokens_per_second = 0;  // tokens / wall_ms
  double wall_ms = 0, cpu_ms = 0;
  double matmul_wall_ms = 0, matmul_cpu_ms = 0;
  double matmul_share = 0, matmul_cpu_share = 0;  // of wall_ms, of cpu_ms
  double matmul_gigaflops_per_second = 0;
  int64_t chunks_closed = 0;
};

struct PhaseReport {
  Measurement learning_off;
  // Absent for a model that does not learn.
  std::optional<Measurement> learning_on;
  double learning_cost_percent = 0, learning_cost_cpu_percent = 0;  // of learning_off's time
};

struct BenchReport {
  std::string model, backend;
  int64_t chunk = 0;  // C; 0: the model does not learn
  BenchOptions options;
  PhaseReport prefill, decode;
};

// Samples of one phase, one for each repeat; `on` is empty for a model that does not learn.
PhaseReport SummarizePhase(int64_t tokens, const std::vector<Sample>& off,
                           const std::vector<Sample>& on);

// A table, and what its columns mean.
std::string ReportText(const BenchReport& report);
// The same figures and the options as a JSON object.
std::string ReportJson(const BenchReport& report);

}  // namespace mneme

#endif  // MNEME_BENCH_REPORT_H_
