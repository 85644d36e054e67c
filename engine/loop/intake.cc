#include "engine/loop/intake.h"

#include <algorithm>
#include <utility>

namespace mneme {

void Intake::Post(Command command) {
  {
    std::lock_guard lock(mutex_);
    commands_.push_back(std::move(command));
  }
  changed_.notify_one();
}

bool Intake::PostRequest(Command command) {
  {
    std::lock_guard lock(mutex_);
    if (requests_ >= max_requests_) return false;
    ++requests_;
    commands_.push_back(std::move(command));
  }
  changed_.notify_one();
  return true;
}

void Intake::Notify() {
  {
    std::lock_guard lock(mutex_);
    notified_ = true;
  }
  changed_.notify_one();
}

std::vector<Intake::Command> Intake::Take(absl::Duration timeout) {
  const absl::Duration wait = std::clamp(timeout, absl::ZeroDuration(), absl::Hours(1));
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, absl::ToChronoNanoseconds(wait),
                    [this] { return notified_ || !commands_.empty(); });
  notified_ = false;
  requests_ = 0;
  return std::exchange(commands_, {});
}

int64_t Intake::requests() const {
  std::lock_guard lock(mutex_);
  return requests_;
}

}  // namespace mneme
