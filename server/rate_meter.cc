#include "server/rate_meter.h"

namespace mneme {

void RateMeter::Add(absl::Time now, int64_t count) {
  const int64_t second = absl::ToUnixSeconds(now);
  const std::lock_guard lock(mutex_);
  Bucket& bucket = buckets_[static_cast<size_t>(second % kSeconds)];
  if (bucket.second != second) bucket = {second, 0};
  bucket.count += count;
}

double RateMeter::PerSecond(absl::Time now) const {
  const int64_t second = absl::ToUnixSeconds(now);
  int64_t sum = 0;
  const std::lock_guard lock(mutex_);
  for (const Bucket& bucket : buckets_) {
    if (bucket.second > second - kSeconds && bucket.second <= second) sum += bucket.count;
  }
  return static_cast<double>(sum) / static_cast<double>(kSeconds);
}

}  // namespace mneme
