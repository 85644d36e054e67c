#ifndef MNEME_BENCH_STATISTICS_H_
#define MNEME_BENCH_STATISTICS_H_

// What many measured values come to.

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "base/check.h"

namespace mneme {

// Of at least one value.
inline double Median(std::vector<double> values) {
  MNEME_CHECK(!values.empty());
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

// The value that a share of `values` does not exceed; 0 of none. `share` is in [0, 1].
inline double Quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
}

// 0 of none.
inline double Mean(const std::vector<double>& values) {
  if (values.empty()) return 0;
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

}  // namespace mneme

#endif  // MNEME_BENCH_STATISTICS_H_
