#ifndef MNEME_BENCH_SERVING_H_
#define MNEME_BENCH_SERVING_H_

// What the scheduler makes of a model: sessions that generate together, on a CPU set beside what
// the machine allows, and a stream while documents are read.

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "bench/engine_clients.h"
#include "bench/options.h"

namespace mneme {

struct ServingOptions {
  BenchOptions model;  // which one, and on what
  int64_t sessions = 32;
  int64_t documents = 4;
  int64_t document_tokens = 32768;
  int64_t context = 512;        // tokens that a session has read before it generates
  int64_t decode_tokens = 256;  // that it generates; a stream beside documents eight times as many
  int64_t moves = 0;            // requests of sessions that are not on the device; 0: not measured
  absl::Duration target = absl::Milliseconds(8);            // while documents are read
  absl::Duration together_target = absl::Milliseconds(40);  // while sessions generate together
};

// What a step takes at least: the bytes that it reads over the read bandwidth of so many bytes, and
// its operations over the rate of the matmul library at so many rows.
struct StepBound {
  double bytes = 0, bytes_per_second = 0, flops = 0, flops_per_second = 0;

  double seconds() const;
};

struct ServingReport {
  int64_t sessions = 0, documents = 0;

  // Of sessions that generate together, and of one alone.
  double alone_tokens_per_second = 0, together_tokens_per_second = 0;
  double together_step_ms = 0;     // median between two tokens of a session
  std::optional<StepBound> bound;  // of a step of all of them; on a CPU

  // Between tokens of one stream, by the engine's clock.
  double alone_p50_ms = 0, alone_p99_ms = 0;
  double beside_p50_ms = 0, beside_p99_ms = 0;  // while documents are read
  double document_tokens_per_second = 0;        // of all documents, meanwhile

  // A stream's mean time between tokens while updates of chunks that nobody waits for are done, and
  // when they are.
  int64_t idle_updates = 0;
  double beside_updates_mean_ms = 0, after_updates_mean_ms = 0;

  // Of states between the device and the host's memory, while a stream runs.
  Moves parked, unparked;
  double before_moves_p50_ms = 0, during_moves_p50_ms = 0;  // of the stream
  double copy_to_host_gb_s = 0, copy_from_host_gb_s = 0;    // one copy of a state's size, alone
  // What the second p99 must stay under: on a CPU the larger of three times the median alone and
  // 10 ms, on a GPU the target.
  double limit_ms = 0;
};

// Takes about a minute. Statuses as Engine::Create and LoadWeights; `report` then holds what was
// measured before.
absl::Status MeasureServing(const ServingOptions& options, ServingReport& report);

std::string ServingText(const ServingReport& report);

// Bytes a second at which `threads` threads together read a buffer of `bytes`: the best of several
// passes, as a bound is what can be reached.
double ReadBandwidth(int64_t bytes, int threads);

}  // namespace mneme

#endif  // MNEME_BENCH_SERVING_H_
