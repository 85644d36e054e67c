#ifndef MNEME_ENGINE_LOOP_INTAKE_H_
#define MNEME_ENGINE_LOOP_INTAKE_H_

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "absl/time/time.h"

namespace mneme {

// What other threads want done on the engine thread. Thread-safe.
class Intake {
 public:
  using Command = std::function<void()>;

  // At most so many requests wait here; other commands are not bounded.
  explicit Intake(int64_t max_requests) : max_requests_(max_requests) {}

  void Post(Command command);
  // A command that brings a request; false, and nothing done, if too many wait already.
  bool PostRequest(Command command);
  // Something has changed that the engine thread should look at (a channel).
  void Notify();

  // Takes what was posted, in order. Waits until there is something, Notify was called since the
  // last call, or `timeout` has passed.
  std::vector<Command> Take(absl::Duration timeout);

  // That wait here.
  int64_t requests() const;

 private:
  const int64_t max_requests_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Command> commands_;
  int64_t requests_ = 0;  // of commands_
  bool notified_ = false;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_LOOP_INTAKE_H_
