#ifndef MNEME_ENGINE_DURABILITY_IO_THREAD_H_
#define MNEME_ENGINE_DURABILITY_IO_THREAD_H_

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace mneme {

// A thread that does what takes long, in order, so that the engine thread need not wait for it.
class IoThread {
 public:
  using Work = std::function<void()>;

  IoThread();
  ~IoThread() { Stop(); }

  // Any thread. Dropped once it is stopped.
  void Run(Work work);
  // Finishes what it is at; drops what waits. Not on the thread itself, unless it is stopped.
  void Stop();

  IoThread(const IoThread&) = delete;
  IoThread& operator=(const IoThread&) = delete;

 private:
  void Loop();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Work> waiting_;
  bool ending_ = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace mneme

#endif  // MNEME_ENGINE_DURABILITY_IO_THREAD_H_
