#ifndef MNEME_ENGINE_SCHEDULING_DECAYING_RATE_H_
#define MNEME_ENGINE_SCHEDULING_DECAYING_RATE_H_

#include <algorithm>
#include <cmath>

#include "absl/time/time.h"

namespace mneme {

// How much comes a second, of late: what came weighs less by e every kMemory. One thread.
class DecayingRate {
 public:
  static constexpr absl::Duration kMemory = absl::Seconds(10);

  void Add(absl::Time now, double amount) {
    begin_ = std::min(begin_, now);
    sum_ = SumAt(now) + amount;
    last_ = now;
  }

  // 0 before anything came.
  double PerSecond(absl::Time now) const {
    if (sum_ <= 0) return 0;
    // What has been watched for less than kMemory is spread over that time, at least a millisecond.
    const absl::Duration watched = std::clamp(now - begin_, absl::Milliseconds(1), kMemory);
    return SumAt(now) / absl::ToDoubleSeconds(watched);
  }

 private:
  double SumAt(absl::Time now) const {
    return sum_ <= 0 ? 0 : sum_ * std::exp(-absl::FDivDuration(now - last_, kMemory));
  }

  absl::Time begin_ = absl::InfiniteFuture();
  absl::Time last_;
  double sum_ = 0;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_SCHEDULING_DECAYING_RATE_H_
