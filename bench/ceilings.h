#ifndef MNEME_BENCH_CEILINGS_H_
#define MNEME_BENCH_CEILINGS_H_

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace mneme {

// What the device reaches at its best, measured now: what a workload's floor is counted with.
struct Ceilings {
  double bytes_per_second = 0;  // a large copy on the device, bytes read and written
  double flops_per_second = 0;  // one large product of random matrices, by the matmul library
};

// Takes some seconds on a CPU, and less than a tenth of one on a GPU, with `scale` = 1; the sizes
// grow with `scale` (a GPU needs 8). RESOURCE_EXHAUSTED without room for the matrices.
absl::StatusOr<Ceilings> MeasureCeilings(Backend& backend, int64_t scale);

}  // namespace mneme

#endif  // MNEME_BENCH_CEILINGS_H_
