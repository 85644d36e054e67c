#include "bench/arrivals.h"

#include <algorithm>
#include <cmath>

namespace mneme {

Arrivals::Arrivals(const SimulationOptions& options) : options_(options), random_(options.seed) {
  double work_us = 0;
  std::mt19937 seen = random_;
  constexpr int kSample = 2000;
  for (int i = 0; i < kSample; ++i) work_us += AloneUs(Draw());
  random_ = seen;
  mean_gap_us_ = work_us / kSample / (hostile() ? 1.5 : options.load);
}

SimulatedRequest Arrivals::Next() {
  double gap = std::exponential_distribution<double>(1 / mean_gap_us_)(random_);
  if (options_.scenario == "bursts") {  // ten seconds of which one brings ten times as much
    const bool burst = std::fmod(now_us_, 1e7) < 1e6;
    gap *= burst ? 0.19 : 1.9;
  }
  now_us_ += gap;
  SimulatedRequest request = Draw();
  request.arrival_us = now_us_;
  return request;
}

int64_t Arrivals::Length(double median, double spread, int64_t most) {
  const double tokens = std::lognormal_distribution<double>(std::log(median), spread)(random_);
  return std::clamp<int64_t>(static_cast<int64_t>(tokens * options_.device.token_scale), 1, most);
}

SimulatedRequest Arrivals::Draw() {
  SimulatedRequest request;
  // Where one is hostile, ten of thirteen requests are the last tenant's.
  const auto drawn = static_cast<int>(random_() % (hostile() ? 13 : kTenants));
  request.tenant = std::min(drawn, kTenants - 1);
  if (random_() % 100 < DocumentsOfAHundred()) {
    request.input = Length(8000, 0.8, 32768);
    return request;
  }
  request.position = Length(1500, 1.0, 16384);
  request.input = Length(150, 1.0, 4096);
  request.output = Length(80, 0.8, 1024);
  return request;
}

unsigned long Arrivals::DocumentsOfAHundred() const {
  if (options_.scenario == "chat") return 0;
  return options_.scenario == "ingestion" ? 40 : 5;
}

double Arrivals::AloneUs(const SimulatedRequest& request) const {
  const DeviceProfile& d = options_.device;
  const StepWork work = {
      .decode_rows = request.output,
      .decode_keys = request.output * (request.position + request.input + request.output / 2),
      .prefill_rows = request.input,
      .prefill_keys = request.input * (request.position + request.input / 2),
      .updates = (request.input + request.output) / d.chunk_tokens};
  const auto rows = static_cast<double>(request.input);
  const double steps =
      static_cast<double>(request.output) / 32 + rows / static_cast<double>(d.max_step_tokens);
  return d.TimeUs(work) + (steps - 1) * d.step_us;
}

}  // namespace mneme
