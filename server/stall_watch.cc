#include "server/stall_watch.h"

#include "absl/time/clock.h"

namespace mneme {

void StallWatch::Begin() {
  const std::lock_guard lock(mutex_);
  waiting_ = true;
  ++begun_;
  if (watched_ == 0) SetAlarm();
}

void StallWatch::End() {
  const std::lock_guard lock(mutex_);
  waiting_ = false;
}

bool StallWatch::stalled() const {
  const std::lock_guard lock(mutex_);
  return stalled_;
}

void StallWatch::Stop() {
  const std::lock_guard lock(mutex_);
  call_ = nullptr;
}

void StallWatch::SetAlarm() {
  watched_ = begun_;
  alarm_.Set(absl::ToChronoTime(absl::Now() + limit_), [weak = weak_from_this()](bool) {
    if (const auto watch = weak.lock()) watch->Look();
  });
}

void StallWatch::Look() {
  const std::lock_guard lock(mutex_);
  if (call_ == nullptr || stalled_) return;
  if (!waiting_ || begun_ != watched_) return SetAlarm();
  stalled_ = true;
  call_->TryCancel();
}

}  // namespace mneme
