#ifndef MNEME_ENGINE_DURABILITY_MAILBOX_H_
#define MNEME_ENGINE_DURABILITY_MAILBOX_H_

#include <functional>
#include <mutex>
#include <utility>
#include <vector>

namespace mneme {

// What the threads of the disk want done on the engine thread. Thread-safe.
class Mailbox {
 public:
  using Letter = std::function<void()>;

  // `notify` wakes the engine thread; any thread calls it. May be null.
  explicit Mailbox(std::function<void()> notify) : notify_(std::move(notify)) {}

  void Post(Letter letter) {
    {
      const std::lock_guard lock(mutex_);
      letters_.push_back(std::move(letter));
    }
    if (notify_) notify_();
  }

  // What was posted, in order.
  std::vector<Letter> Take() {
    const std::lock_guard lock(mutex_);
    return std::exchange(letters_, {});
  }

 private:
  const std::function<void()> notify_;
  std::mutex mutex_;
  std::vector<Letter> letters_;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_DURABILITY_MAILBOX_H_
