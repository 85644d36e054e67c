#include "loadtest/schedule.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <random>

namespace mneme {
namespace {

constexpr std::array kWords = {"the",   "river", "door", "of",    "a",    "city", "remembers",
                               "light", "and",   "code", "seven", "blue", "is",   "north"};

// Draws that are the same with every standard library.
class Draws {
 public:
  explicit Draws(uint64_t seed) : bits_(seed) {}

  uint64_t Seed() { return bits_(); }
  double Uniform() { return static_cast<double>(bits_() >> 11) * 0x1p-53; }  // in [0, 1)
  bool Chance(double probability) { return Uniform() < probability; }
  double Exponential(double mean) { return -mean * std::log1p(-Uniform()); }
  // In [low, high].
  int64_t Between(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(Uniform() * static_cast<double>(high - low + 1));
  }
  // Between half and one and a half of `mean`, at least 1.
  int64_t Around(int64_t mean) {
    return Between(std::max<int64_t>(1, mean - mean / 2), mean + mean / 2);
  }

 private:
  std::mt19937_64 bits_;
};

int64_t Microseconds(double seconds) { return std::llround(seconds * 1e6); }

void DrawDisturbance(const LoadOptions& options, int64_t steps, Draws& draws, RequestPlan& plan) {
  if (draws.Chance(options.cancel_fraction)) {
    plan.cancel_after = draws.Between(0, steps - 1);
    plan.cancel_by_call = draws.Chance(0.5);
  }
  plan.slow_reader = draws.Chance(options.slow_reader_fraction);
}

RequestPlan DrawTurn(const LoadOptions& options, bool first, Draws& draws) {
  RequestPlan plan;
  if (!first) plan.think_us = Microseconds(draws.Exponential(options.think_s));
  plan.input_tokens = draws.Around(options.input_tokens);
  plan.output_tokens = draws.Around(options.output_tokens);
  DrawDisturbance(options, plan.output_tokens, draws, plan);
  return plan;
}

RequestPlan DrawDocument(const LoadOptions& options, Draws& draws) {
  RequestPlan plan;
  plan.input_tokens = draws.Around(options.document_tokens);
  const int64_t pieces = (plan.input_tokens + options.piece_tokens - 1) / options.piece_tokens;
  DrawDisturbance(options, pieces, draws, plan);
  return plan;
}

double DocumentShare(const LoadOptions& options) {
  if (options.scenario == Scenario::kMixed) return options.document_share;
  return options.scenario == Scenario::kIngest ? 1 : 0;
}

Arrival DrawArrival(const LoadOptions& options, int64_t at_us, Draws& draws) {
  Arrival arrival{.at_us = at_us, .seed = draws.Seed()};
  arrival.is_document = draws.Chance(DocumentShare(options));
  if (arrival.is_document) {
    arrival.requests.push_back(DrawDocument(options, draws));
    return arrival;
  }
  arrival.checked = draws.Chance(options.check_fraction);
  for (int64_t turn = 0; turn < options.turns; ++turn) {
    arrival.requests.push_back(DrawTurn(options, turn == 0, draws));
  }
  return arrival;
}

Draws InputDraws(const Arrival& arrival, size_t index) { return Draws(arrival.seed + index); }

}  // namespace

std::vector<Arrival> MakeSchedule(const LoadOptions& options) {
  std::vector<Arrival> schedule;
  Draws draws(options.seed);
  double time_s = draws.Exponential(1 / options.rate);
  while (time_s < options.duration_s) {
    schedule.push_back(DrawArrival(options, Microseconds(time_s), draws));
    time_s += draws.Exponential(1 / options.rate);
  }
  return schedule;
}

std::vector<uint32_t> InputIds(const Arrival& arrival, size_t index, uint32_t vocab_size) {
  Draws draws = InputDraws(arrival, index);
  std::vector<uint32_t> ids(static_cast<size_t>(arrival.requests[index].input_tokens));
  for (uint32_t& id : ids) id = static_cast<uint32_t>(draws.Between(0, int64_t{vocab_size} - 1));
  return ids;
}

std::string InputText(const Arrival& arrival, size_t index) {
  Draws draws = InputDraws(arrival, index);
  std::string text;
  for (int64_t i = 0; i < arrival.requests[index].input_tokens; ++i) {
    text += kWords[static_cast<size_t>(draws.Between(0, int64_t{kWords.size()} - 1))];
    text += ' ';
  }
  return text;
}

}  // namespace mneme
