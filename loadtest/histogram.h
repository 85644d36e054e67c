#ifndef MNEME_LOADTEST_HISTOGRAM_H_
#define MNEME_LOADTEST_HISTOGRAM_H_

#include <cstdint>
#include <vector>

namespace mneme {

// Counts of durations in logarithmic buckets that are cut linearly: exact below 2,048 us, within
// 0.1 % above, in memory that does not grow with the number of samples.
class Histogram {
 public:
  // Negative durations count as 0.
  void Add(int64_t value_us);

  int64_t count() const { return count_; }
  int64_t max_us() const { return max_us_; }  // exact; 0 if empty
  double mean_us() const;                     // exact; 0 if empty

  // The smallest value that at least `fraction` of the samples do not exceed (nearest rank), up to
  // its bucket's width. `fraction` in [0, 1]; 0 if empty.
  int64_t PercentileUs(double fraction) const;

 private:
  std::vector<int64_t> buckets_;
  int64_t count_ = 0;
  int64_t max_us_ = 0;
  double sum_us_ = 0;
};

}  // namespace mneme

#endif  // MNEME_LOADTEST_HISTOGRAM_H_
