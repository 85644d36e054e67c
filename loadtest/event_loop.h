#ifndef MNEME_LOADTEST_EVENT_LOOP_H_
#define MNEME_LOADTEST_EVENT_LOOP_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>

namespace mneme {

// Runs tasks at their times, one after the other, on the thread that calls Run(): what they share
// needs no lock. Every other function is thread-safe.
class EventLoop {
 public:
  // Since the loop was made.
  int64_t now_us() const;

  // Tasks of the same time run in the order of these calls; a time that has passed means now.
  void At(int64_t time_us, std::function<void()> task);
  void Post(std::function<void()> task) { At(0, std::move(task)); }

  // Returns after Stop(), with the running task done and later ones not begun.
  void Run();
  void Stop();

 private:
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::mutex mutex_;
  std::condition_variable changed_;
  std::multimap<int64_t, std::function<void()>> tasks_;  // by time; guarded by mutex_
  bool stopped_ = false;                                 // guarded by mutex_
};

}  // namespace mneme

#endif  // MNEME_LOADTEST_EVENT_LOOP_H_
