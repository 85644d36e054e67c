#ifndef MNEME_KERNELS_BENCH_MEASURE_H_
#define MNEME_KERNELS_BENCH_MEASURE_H_

#include "kernels/bench/bench_case.h"

namespace mneme {

// What the device reaches in this run: the measure of all else.
struct DeviceCeilings {
  double bytes_per_second = 0;  // a large copy on the device, bytes read and written
  double flops_per_second = 0;  // one large Linear
};

DeviceCeilings MeasureCeilings(BenchDevice& device, const BenchShape& shape);

// Sets enough that no cache keeps one until it comes again, within reason.
int SetsFor(const BenchCase& c);

// The median seconds of one run: many are queued before the device is waited for, in turn over the
// sets; those of decode steps as records (Stream::Repeat), which earlier runs have made. `key` is
// of no other case.
double SecondsOf(BenchDevice& device, const BenchCase& c, const PreparedCase& prepared, int sets,
                 uint64_t key);

// Runs set 0 once.
void RunOnce(BenchDevice& device, const PreparedCase& prepared);

// The largest difference over the largest value; of draws, the share that differs. Of results of
// unequal length the shorter one counts.
double ErrorOf(const BenchCase& c, const std::vector<float>& result,
               const std::vector<float>& reference);

}  // namespace mneme

#endif  // MNEME_KERNELS_BENCH_MEASURE_H_
