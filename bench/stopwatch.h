#ifndef MNEME_BENCH_STOPWATCH_H_
#define MNEME_BENCH_STOPWATCH_H_

#include <chrono>
#include <ctime>

namespace mneme {

// How long something took, and the processor time of all threads meanwhile.
struct Duration {
  double wall_ms = 0;
  double cpu_ms = 0;

  Duration& operator+=(const Duration& other) {
    wall_ms += other.wall_ms;
    cpu_ms += other.cpu_ms;
    return *this;
  }
};

// Runs since its construction.
class Stopwatch {
 public:
  Duration Elapsed() const { return {WallMs() - wall_ms_, CpuMs() - cpu_ms_}; }

 private:
  static double WallMs() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double, std::milli>(now).count();
  }
  static double CpuMs() {
    timespec now{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) * 1e-6;
  }

  double wall_ms_ = WallMs();
  double cpu_ms_ = CpuMs();
};

}  // namespace mneme

#endif  // MNEME_BENCH_STOPWATCH_H_
