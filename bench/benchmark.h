#ifndef MNEME_BENCH_BENCHMARK_H_
#define MNEME_BENCH_BENCHMARK_H_

#include "absl/status/statusor.h"
#include "bench/options.h"
#include "bench/report.h"

namespace mneme {

// Measures one session that learns, one on the same model without In-Place TTT, and the matrix
// products of each alone. They take turns step by step, so that what else the machine does meets
// all of them. INVALID_ARGUMENT for a model or lengths that do not fit together.
absl::StatusOr<BenchReport> RunBenchmark(const BenchOptions& options);

}  // namespace mneme

#endif  // MNEME_BENCH_BENCHMARK_H_
