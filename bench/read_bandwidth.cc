#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <thread>
#include <vector>

#include "bench/serving.h"
#include "bench/stopwatch.h"

namespace mneme {
namespace {

uint64_t Sum(const uint64_t* begin, const uint64_t* end) {
  uint64_t sums[8] = {};
  for (; begin + 8 <= end; begin += 8) {
    for (int i = 0; i < 8; ++i) sums[i] += begin[i];
  }
  uint64_t sum = 0;
  for (const uint64_t part : sums) sum += part;
  return sum;
}

}  // namespace

double ReadBandwidth(int64_t bytes, int threads) {
  constexpr int kPasses = 15;
  const std::vector<uint64_t> buffer(static_cast<size_t>(bytes) / sizeof(uint64_t), 1);
  const size_t part = buffer.size() / static_cast<size_t>(threads);
  std::atomic<uint64_t> sum = 0;
  double best_seconds = std::numeric_limits<double>::infinity();
  for (int pass = 0; pass < kPasses; ++pass) {
    const Stopwatch stopwatch;
    std::vector<std::thread> readers;
    for (size_t t = 0; t < static_cast<size_t>(threads); ++t) {
      readers.emplace_back([&, t] {
        const uint64_t* begin = buffer.data() + t * part;
        sum += Sum(begin, begin + part);
      });
    }
    for (std::thread& reader : readers) reader.join();
    best_seconds = std::min(best_seconds, stopwatch.Elapsed().wall_ms / 1e3);
  }
  // The sum is used, so that it is computed.
  return sum.load() == 0 ? 0 : static_cast<double>(bytes) / best_seconds;
}

}  // namespace mneme
