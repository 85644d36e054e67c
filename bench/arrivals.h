#ifndef MNEME_BENCH_ARRIVALS_H_
#define MNEME_BENCH_ARRIVALS_H_

#include <cstdint>
#include <random>

#include "bench/simulation.h"

namespace mneme {

inline constexpr int kTenants = 4;

// A simulated request.
struct SimulatedRequest {
  double arrival_us = 0;
  int tenant = 0;
  int64_t position = 0;  // where its session stands
  int64_t input = 0;
  int64_t output = 0;  // 0: a document
};

// Random requests, the same for the same options whatever the policy. One thread.
class Arrivals {
 public:
  // `options` must outlive it.
  explicit Arrivals(const SimulationOptions& options);

  // The next request, by the time of its arrival.
  SimulatedRequest Next();

 private:
  bool hostile() const { return options_.scenario == "hostile"; }
  int64_t Length(double median, double spread, int64_t most);
  SimulatedRequest Draw();
  unsigned long DocumentsOfAHundred() const;
  // What a request takes of the device where many share its steps.
  double AloneUs(const SimulatedRequest& request) const;

  const SimulationOptions& options_;
  std::mt19937 random_;
  double mean_gap_us_ = 0;
  double now_us_ = 0;
};

}  // namespace mneme

#endif  // MNEME_BENCH_ARRIVALS_H_
