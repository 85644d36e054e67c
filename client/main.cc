// The program `mneme`: a console, Ctrl-C, and the client.

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <thread>

#include "client/client.h"

namespace {

double MonotonicSeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// No call is under way: the program waits for input, which nothing can end but its exit.
void ExitInterrupted() {
  std::cerr << std::endl;
  std::_Exit(130);
}

// Hands SIGINT and SIGTERM to an Interrupter on a thread of its own, where it may take locks.
// Make it before any other thread, so that all of them have the signals blocked.
class SignalThread {
 public:
  explicit SignalThread(mneme::Interrupter& interrupter) {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGINT);
    sigaddset(&signals_, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
    thread_ = std::thread([this, &interrupter] {
      int signal = 0;
      while (sigwait(&signals_, &signal) == 0 && !done_) interrupter.Interrupt();
    });
  }

  ~SignalThread() {
    done_ = true;
    pthread_kill(thread_.native_handle(), SIGINT);  // blocked: it only ends the sigwait
    thread_.join();
  }

 private:
  sigset_t signals_;
  std::atomic<bool> done_ = false;
  std::thread thread_;
};

}  // namespace

int main(int argc, char** argv) {
  mneme::Interrupter interrupter(ExitInterrupted);
  const SignalThread signal_thread(interrupter);
  mneme::Console console{.in = std::cin,
                         .out = std::cout,
                         .err = std::cerr,
                         .in_is_terminal = isatty(STDIN_FILENO) != 0,
                         .err_is_terminal = isatty(STDERR_FILENO) != 0,
                         .clock_s = MonotonicSeconds};
  return mneme::RunClient(argc, argv, console, interrupter);
}
