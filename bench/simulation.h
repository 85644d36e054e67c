#ifndef MNEME_BENCH_SIMULATION_H_
#define MNEME_BENCH_SIMULATION_H_

// The scheduler in virtual time: the policy of the engine itself (PlanStep, StepCostModel,
// CheckQueue) on random requests, with steps that take as long as measured ones.

#include <array>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "engine/scheduling/admission.h"
#include "engine/scheduling/plan.h"

namespace mneme {

// How long steps take on a device and model, and what the server's defaults for it are.
struct DeviceProfile {
  const char* name = "";
  double step_us = 0, decode_row_us = 0, decode_key_us = 0, prefill_row_us = 0, prefill_key_us = 0,
         update_us = 0;
  int64_t chunk_tokens = 0;
  int64_t max_step_tokens = 0;
  double target_us = 0;
  double token_scale = 1;  // of the requests' lengths

  double TimeUs(const StepWork& work) const;
};

// "h200": Qwen3-4B in bf16 on one H200. "cpu": the bundled model on two cores. Null: no such name.
const DeviceProfile* FindProfile(const std::string& name);

// What comes, of four tenants in equal parts: chats alone ("chat"); chats and now and then a
// document
// ("mixed"); documents mostly ("ingestion"); the mixture, ten times as much in a tenth of the time
// ("bursts"); the mixture, with one tenant that sends ten times what each other does, and more than
// the device can do ("hostile").
extern const std::vector<std::string> kScenarios;

// "exact": the engine's policy. "deferred": with updates of running streams put off. "first-come":
// streams, then input in the order of arrival, whatever it takes and whosesoever it is.
extern const std::vector<std::string> kPolicies;

struct SimulationOptions {
  DeviceProfile device;
  std::string scenario = "mixed";
  std::string policy = "exact";
  int64_t requests = 100000;
  uint32_t seed = 1;
  double load = 0.7;  // offered work over what the device can do
};

// Counts of times in buckets half a percent wide.
class TimeHistogram {
 public:
  void Add(double time_us);
  // In milliseconds; 0 of nothing.
  double QuantileMs(double share) const;

 private:
  std::array<int64_t, 6000> counts_{};
  int64_t total_ = 0;
};

struct SimulationReport {
  std::string scenario, policy;
  int64_t requests = 0, refused = 0, steps = 0;
  double seconds = 0;                  // virtual
  TimeHistogram first_token, between;  // of chats
  TimeHistogram polite_first_token;    // of the tenants but the last, who may be hostile
  TimeHistogram update_wait;           // of chunks that a request ended with, until learnt
  double tokens_per_second = 0;        // computed, of input and output
  double goodput = 0;                  // chats a second served in time, see kGood... in .cc
  double fairness = 0;                 // Jain's index over tenants
};

// `progress` is told now and then what share is done.
SimulationReport Simulate(const SimulationOptions& options,
                          const std::function<void(double)>& progress);

// One line for each report, under a heading.
std::string SimulationText(const std::vector<SimulationReport>& reports);
std::string SimulationJson(const std::vector<SimulationReport>& reports);

}  // namespace mneme

#endif  // MNEME_BENCH_SIMULATION_H_
