#include "loadtest/event_loop.h"

#include <utility>

namespace mneme {

int64_t EventLoop::now_us() const {
  return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() -
                                                               start_)
      .count();
}

void EventLoop::At(int64_t time_us, std::function<void()> task) {
  std::lock_guard lock(mutex_);
  tasks_.emplace(time_us, std::move(task));
  changed_.notify_one();
}

void EventLoop::Run() {
  std::unique_lock lock(mutex_);
  while (!stopped_) {
    if (tasks_.empty()) {
      changed_.wait(lock);
    } else if (const int64_t due_us = tasks_.begin()->first; due_us > now_us()) {
      changed_.wait_until(lock, start_ + std::chrono::microseconds(due_us));
    } else {
      const std::function<void()> task = std::move(tasks_.extract(tasks_.begin()).mapped());
      lock.unlock();
      task();
      lock.lock();
    }
  }
}

void EventLoop::Stop() {
  std::lock_guard lock(mutex_);
  stopped_ = true;
  changed_.notify_one();
}

}  // namespace mneme
