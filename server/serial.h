#ifndef MNEME_SERVER_SERIAL_H_
#define MNEME_SERVER_SERIAL_H_

#include <atomic>

namespace mneme {

// Runs a step after every call of Run, never two at a time: a call that finds a step running
// returns at once, and that step's thread runs another one. So a step may cause calls of Run
// itself, and what only steps touch needs no lock. Thread-safe.
class Serial {
 public:
  // `step` must be the same for all calls.
  template <typename Step>
  void Run(Step step) {
    if (calls_.fetch_add(1, std::memory_order_acq_rel) > 0) return;
    int seen = 1;
    do {
      step();
      seen = calls_.fetch_sub(seen, std::memory_order_acq_rel) - seen;
    } while (seen > 0);
  }

 private:
  std::atomic<int> calls_ = 0;  // not yet followed by a whole step
};

}  // namespace mneme

#endif  // MNEME_SERVER_SERIAL_H_
