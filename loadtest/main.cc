// The program `mneme-loadtest`: Ctrl-C, and the load test.

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <stop_token>
#include <thread>

#include "loadtest/loadtest.h"

namespace {

constexpr int kExitInterrupted = 130;

// Turns the first SIGINT or SIGTERM into a stop, on a thread of its own; a second one ends the
// program. Make it before any other thread, so that all of them have the signals blocked.
class SignalThread {
 public:
  SignalThread() {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGINT);
    sigaddset(&signals_, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
    thread_ = std::thread([this] {
      int signal = 0;
      while (sigwait(&signals_, &signal) == 0 && !done_) {
        if (!stop_.request_stop()) std::_Exit(kExitInterrupted);
      }
    });
  }

  ~SignalThread() {
    done_ = true;
    pthread_kill(thread_.native_handle(), SIGINT);  // blocked: it only ends the sigwait
    thread_.join();
  }

  std::stop_token token() const { return stop_.get_token(); }

 private:
  sigset_t signals_;
  std::stop_source stop_;
  std::atomic<bool> done_ = false;
  std::thread thread_;
};

}  // namespace

int main(int argc, char** argv) {
  const SignalThread signals;
  return mneme::RunLoadtestProgram(argc, argv, std::cout, std::cerr, isatty(STDERR_FILENO) != 0,
                                   signals.token());
}
