#ifndef MNEME_BENCH_MEDIAN_H_
#define MNEME_BENCH_MEDIAN_H_

#include <algorithm>
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

}  // namespace mneme

#endif  // MNEME_BENCH_MEDIAN_H_
