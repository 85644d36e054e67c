#ifndef MNEME_ENGINE_INTAKE_H_
#define MNEME_ENGINE_INTAKE_H_

#include <condition_variable>
#include <functional>
#include <mutex>
#include <vector>

#include "absl/time/time.h"

namespace mneme {

// What other threads want done on the engine thread. Thread-safe.
class Intake {
 public:
  using Command = std::function<void()>;

  void Post(Command command);
  // Something has changed that the engine thread should look at (a channel).
  void Notify();

  // Takes what was posted, in order. Waits until there is something, Notify was called since the
  // last call, or `timeout` has passed.
  std::vector<Command> Take(absl::Duration timeout);

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Command> commands_;
  bool notified_ = false;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_INTAKE_H_
