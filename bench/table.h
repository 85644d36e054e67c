#ifndef MNEME_BENCH_TABLE_H_
#define MNEME_BENCH_TABLE_H_

// Rows of work on one model, each measured with learning on and off and set beside the floor that
// the device's own ceilings allow.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/ceilings.h"
#include "bench/options.h"
#include "bench/work.h"
#include "bench/workload.h"

namespace mneme {

// One workload with one setting of learning.
struct TableRow {
  Workload workload;
  bool learning = false;
  double ms = 0;                 // median of a decode step, or of the whole prefill
  double p99_ms = 0;             // of decode steps; of a prefill: the longest repeat
  double tokens_per_second = 0;  // of all streams together
  Work work;
  double floor_ms = 0;
  int64_t chunks_closed = 0;
  int64_t updates_skipped = 0;
};

struct BenchTable {
  std::string model, backend;
  int64_t chunk = 0;  // C; 0: the model does not learn
  int64_t step_tokens = 0;
  Ceilings ceilings;
  std::vector<TableRow> rows;
};

// Measures the workloads of `options`. INVALID_ARGUMENT for one that does not fit the model,
// RESOURCE_EXHAUSTED for one that does not fit into the device, FAILED_PRECONDITION if the model's
// output does not stay finite, so that nothing was measured. `progress` is told what is done next.
absl::StatusOr<BenchTable> RunTable(const BenchOptions& options,
                                    const std::function<void(const std::string&)>& progress);

std::string TableText(const BenchTable& table);
std::string TableJson(const BenchTable& table);

}  // namespace mneme

#endif  // MNEME_BENCH_TABLE_H_
