#ifndef MNEME_SERVER_RATE_METER_H_
#define MNEME_SERVER_RATE_METER_H_

#include <array>
#include <cstdint>
#include <mutex>

#include "absl/time/time.h"

namespace mneme {

// How many of something there were a second over the last ten seconds. Thread-safe.
class RateMeter {
 public:
  void Add(absl::Time now, int64_t count);
  double PerSecond(absl::Time now) const;

 private:
  static constexpr int64_t kSeconds = 10;

  struct Bucket {
    int64_t second = -1;  // Unix time
    int64_t count = 0;
  };

  mutable std::mutex mutex_;
  std::array<Bucket, kSeconds> buckets_;  // [second mod kSeconds]
};

}  // namespace mneme

#endif  // MNEME_SERVER_RATE_METER_H_
