#ifndef MNEME_BENCH_RANDOM_TOKENS_H_
#define MNEME_BENCH_RANDOM_TOKENS_H_

#include <cstdint>
#include <random>
#include <vector>

namespace mneme {

// `count` ids in [0, vocab_size), a function of the arguments alone.
inline std::vector<int32_t> RandomTokens(int64_t count, int64_t vocab_size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int32_t& token : tokens) {
    token = static_cast<int32_t>(random() % static_cast<uint64_t>(vocab_size));
  }
  return tokens;
}

}  // namespace mneme

#endif  // MNEME_BENCH_RANDOM_TOKENS_H_
