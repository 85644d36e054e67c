#ifndef MNEME_BENCH_SERVING_H_
#define MNEME_BENCH_SERVING_H_

// What the scheduler makes of a model on a CPU: sessions that generate together, set beside what
// the machine allows, and a stream while documents are read.

#include <cstdint>
#include <filesystem>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace mneme {

struct ServingOptions {
  std::filesystem::path model_dir;
  int64_t sessions = 32;
  int64_t documents = 4;
  int64_t context = 512;        // tokens that a session has read before it generates
  int64_t decode_tokens = 256;  // that it generates; a stream beside documents eight times as many
  int threads = 0;              // 0: one for each processor
  absl::Duration target = absl::Milliseconds(8);            // while documents are read
  absl::Duration together_target = absl::Milliseconds(40);  // while sessions generate together
};

struct ServingReport {
  int64_t sessions = 0, documents = 0;

  // Of sessions that generate together, and of one alone.
  double alone_tokens_per_second = 0, together_tokens_per_second = 0;
  // A step of all of them, at least: what it reads over the read bandwidth of so many bytes, and
  // its operations over the rate of the matmul library at so many rows.
  double bytes = 0, bytes_per_second = 0, flops = 0, flops_per_second = 0;

  // Between tokens of one stream, by the engine's clock.
  double alone_p50_ms = 0, alone_p99_ms = 0;
  double beside_p50_ms = 0, beside_p99_ms = 0;  // while documents are read
  double document_tokens_per_second = 0;        // of all documents, meanwhile

  double BoundTokensPerSecond() const;
  // The larger of three times the median alone and 10 ms.
  double BesideLimitMs() const;
};

// Takes about a minute. Statuses as Engine::Create and LoadWeights.
absl::StatusOr<ServingReport> MeasureServing(const ServingOptions& options);

std::string ServingText(const ServingReport& report);

// Bytes a second at which `threads` threads together read a buffer of `bytes`: the best of several
// passes, as a bound is what can be reached.
double ReadBandwidth(int64_t bytes, int threads);

}  // namespace mneme

#endif  // MNEME_BENCH_SERVING_H_
