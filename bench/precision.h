#ifndef MNEME_BENCH_PRECISION_H_
#define MNEME_BENCH_PRECISION_H_

// What the types that fast weights are kept in cost in accuracy: one text is read with each, and
// the log-probabilities of its tokens are set beside those with float32.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/options.h"
#include "kernels/cuda/cuda_backend.h"

namespace mneme {

struct PrecisionRow {
  DeltaType accumulate = DeltaType::kFloat32;
  DeltaType read = DeltaType::kFloat32;
  int64_t delta_bytes = 0;            // of a session, all TTT layers
  double mean_logprob = 0;            // of the text's tokens
  double mean_difference = 0;         // of mean_logprob, to the first row's
  double rms_error = 0;               // of a token's log-probability, to the first row's
  double last_quarter_rms_error = 0;  // of the text's last quarter, after the most updates
  double largest_error = 0;
};

struct PrecisionReport {
  std::string model, backend;
  int64_t tokens = 0, chunk = 0, updates = 0;  // updates: chunks closed
  // The first is float32 throughout, and so is the last: what two runs alike differ by.
  std::vector<PrecisionRow> rows;
  double frozen_mean_logprob = 0;
};

// Reads `options.text_file`, or random tokens, up to `options.prefill_tokens`, once with each pair
// of types on the CUDA backend. INVALID_ARGUMENT without CUDA or for a model that does not learn.
absl::StatusOr<PrecisionReport> MeasurePrecision(
    const BenchOptions& options, const std::function<void(const std::string&)>& progress);

std::string PrecisionText(const PrecisionReport& report);
std::string PrecisionJson(const PrecisionReport& report);

}  // namespace mneme

#endif  // MNEME_BENCH_PRECISION_H_
