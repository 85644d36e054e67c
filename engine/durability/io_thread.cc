#include "engine/durability/io_thread.h"

#include <utility>

namespace mneme {

IoThread::IoThread() : thread_([this] { Loop(); }) {}

void IoThread::Stop() {
  std::deque<Work> dropped;  // what it holds may want to run something itself
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    dropped.swap(waiting_);
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void IoThread::Run(Work work) {
  {
    const std::lock_guard lock(mutex_);
    if (ending_) return;
    waiting_.push_back(std::move(work));
  }
  changed_.notify_all();
}

void IoThread::Loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return ending_ || !waiting_.empty(); });
    if (ending_) return;
    Work work = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    work();
    work = nullptr;  // not under the lock: what it holds may want to run something itself
    lock.lock();
  }
}

}  // namespace mneme
