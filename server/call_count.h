#ifndef MNEME_SERVER_CALL_COUNT_H_
#define MNEME_SERVER_CALL_COUNT_H_

#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "absl/time/time.h"

namespace mneme {

// Calls in progress, from their arrival until their status is on its way. Thread-safe.
class CallCount {
 public:
  void Enter() {
    const std::lock_guard lock(mutex_);
    ++calls_;
  }
  void Leave() {
    const std::lock_guard lock(mutex_);
    if (--calls_ == 0) none_.notify_all();
  }

  // Waits until no call is in progress, or the time is over.
  void AwaitNone(absl::Duration timeout) {
    std::unique_lock lock(mutex_);
    none_.wait_for(lock, absl::ToChronoNanoseconds(timeout), [this] { return calls_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable none_;
  int64_t calls_ = 0;  // guarded by mutex_
};

}  // namespace mneme

#endif  // MNEME_SERVER_CALL_COUNT_H_
