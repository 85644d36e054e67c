#ifndef MNEME_KERNELS_BENCH_BENCH_CASE_H_
#define MNEME_KERNELS_BENCH_BENCH_CASE_H_

// One operation at one shape, to be compared and timed.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/bench/bench_device.h"
#include "kernels/bench/bench_step.h"

namespace mneme {

// The sizes of a model, and how much of it a bench takes.
struct BenchShape {
  std::string name;
  int64_t hidden = 0, intermediate = 0;
  int64_t query_heads = 0, kv_heads = 0, head_dim = 0;
  int64_t vocab = 0;
  int64_t prefill_rows = 0;  // also the context that decoding attends to
  int64_t chunk = 0;         // C

  QkvShape qkv() const { return {query_heads, kv_heads, head_dim}; }
  int64_t qkv_features() const { return (query_heads + 2 * kv_heads) * head_dim; }
};

// A case with its inputs on a device, in one or several sets.
struct PreparedCase {
  std::shared_ptr<BenchStep> step;
  std::function<void(int set)> run;
  std::function<std::vector<float>()> result;  // of set 0, after it ran once
};

struct BenchCase {
  std::string kernel, shape;
  double flops = 0, bytes = 0;  // of one run: what it computes, and must read and write
  double set_bytes = 0;         // of one set: what a cache would keep from a run to the next
  bool repeats = false;         // part of decode steps, which are recorded
  bool draws = false;           // results are tokens, which are equal or not
  // With `reference` the case may be cut to its first rows or sequences.
  std::function<PreparedCase(BenchDevice&, int sets, bool reference)> prepare;
};

// To how many rows or sequences a reference is cut.
inline constexpr int64_t kReferenceRows = 64;
inline constexpr int64_t kReferenceSequences = 8;

std::vector<BenchCase> LinearCases(const BenchShape& shape, const BenchDevice& device);
std::vector<BenchCase> RowCases(const BenchShape& shape, const BenchDevice& device);
std::vector<BenchCase> FusedCases(const BenchShape& shape, const BenchDevice& device);
std::vector<BenchCase> SampleCases(const BenchShape& shape);
std::vector<BenchCase> AttentionCases(const BenchShape& shape, BenchDevice& device);
std::vector<BenchCase> FastWeightCases(const BenchShape& shape, BenchDevice& device);
std::vector<BenchCase> CopyCases(const BenchShape& shape);

}  // namespace mneme

#endif  // MNEME_KERNELS_BENCH_BENCH_CASE_H_
