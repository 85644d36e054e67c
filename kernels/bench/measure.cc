#include "kernels/bench/measure.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>

namespace mneme {
namespace {

constexpr double kCacheBytes = 192e6;  // three times the last cache of a large GPU
constexpr int kMaxSets = 8;
constexpr int kRunsOfRecord = 32;
constexpr double kSecondsOfSample = 0.03;
constexpr int kSamples = 3;

double Seconds(BenchDevice& device, const std::function<void()>& body) {
  device.Synchronize();
  const auto begin = std::chrono::steady_clock::now();
  body();
  device.Synchronize();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// The median over a few samples, each of as many calls as fill it.
double MedianSeconds(BenchDevice& device, const std::function<void()>& body) {
  for (int i = 0; i < 3; ++i) body();  // plans, records, clocks
  const double once = Seconds(device, body);
  const int calls = static_cast<int>(std::clamp(kSecondsOfSample / once, 1.0, 1000.0));
  std::array<double, kSamples> samples;
  for (double& sample : samples) {
    sample = Seconds(device, [&] {
      for (int i = 0; i < calls; ++i) body();
    });
  }
  std::sort(samples.begin(), samples.end());
  return samples[kSamples / 2] / calls;
}

}  // namespace

DeviceCeilings MeasureCeilings(BenchDevice& device, const BenchShape& shape) {
  const int64_t bytes = 2 * shape.prefill_rows * shape.intermediate * 4;
  void* from = device.Allocate(bytes);
  void* to = device.Allocate(bytes);
  Stream& stream = device.stream();
  const double copy = MedianSeconds(device, [&] { stream.CopyOnDevice(to, from, bytes); });

  const int64_t n = 2 * shape.prefill_rows, k = shape.prefill_rows, m = 2 * shape.prefill_rows;
  const Matrix x = device.Activations(m, k, 1), y = device.Activations(m, n, 2);
  const PackedMatrix* weight = device.Weights(n, k, 3, 1)[0];
  const double product =
      MedianSeconds(device, [&] { stream.Linear(x, *weight, nullptr, false, y); });
  device.Clear();
  return {2 * static_cast<double>(bytes) / copy,
          2 * static_cast<double>(m) * static_cast<double>(n * k) / product};
}

int SetsFor(const BenchCase& c) {
  return static_cast<int>(std::clamp(std::ceil(kCacheBytes / c.set_bytes), 1.0, double{kMaxSets}));
}

double SecondsOf(BenchDevice& device, const BenchCase& c, const PreparedCase& prepared, int sets,
                 uint64_t key) {
  const int rounds = c.repeats ? (kRunsOfRecord + sets - 1) / sets : 1;
  const auto operations = [&] {
    for (int i = 0; i < rounds * sets; ++i) prepared.run(i % sets);
  };
  const double seconds = MedianSeconds(device, [&] {
    device.stream().BeginStep(prepared.step->batch());
    if (c.repeats) {
      device.stream().Repeat(key, operations);
    } else {
      operations();
    }
  });
  return seconds / (rounds * sets);
}

void RunOnce(BenchDevice& device, const PreparedCase& prepared) {
  device.stream().BeginStep(prepared.step->batch());
  prepared.run(0);
  device.Synchronize();
}

double ErrorOf(const BenchCase& c, const std::vector<float>& result,
               const std::vector<float>& reference) {
  const size_t count = std::min(result.size(), reference.size());
  double error = 0, largest = 0, differing = 0;
  for (size_t i = 0; i < count; ++i) {
    const double difference = std::abs(double{result[i]} - double{reference[i]});
    if (!(difference <= error)) error = difference;  // NaN stays
    largest = std::max(largest, std::abs(double{reference[i]}));
    if (difference != 0) ++differing;
  }
  return c.draws ? differing / static_cast<double>(count) : error / largest;
}

}  // namespace mneme
