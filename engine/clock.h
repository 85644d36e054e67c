#ifndef MNEME_ENGINE_CLOCK_H_
#define MNEME_ENGINE_CLOCK_H_

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace mneme {

// Where the engine reads the time, so that tests can set it. Any thread.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() const { return absl::Now(); }
};

}  // namespace mneme

#endif  // MNEME_ENGINE_CLOCK_H_
