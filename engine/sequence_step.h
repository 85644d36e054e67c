#ifndef MNEME_ENGINE_SEQUENCE_STEP_H_
#define MNEME_ENGINE_SEQUENCE_STEP_H_

// What one session takes part with in one step, and what comes of it.

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "engine/session.h"
#include "kernels/sampling.h"

namespace mneme {

// The rows of one sequence in a step. The cache has pages for all of them, chunk rows if the step
// leaves a chunk open, and deltas if it closes one that learns. What is pointed to must live until
// the step is done.
struct SequenceStep {
  SessionCache* cache = nullptr;
  const ControlLog* controls = nullptr;
  std::vector<int32_t> tokens;  // may be empty: a draw after `last_hidden` only
  int64_t first_position = 0;   // of tokens[0]
  // Rows that leave no trace: no chunk closes, no row is kept for an update.
  bool provisional = false;
  // The HiddenRow of the token before tokens[0]; empty at position 0. Read for the draw if there
  // are no tokens, and for the log-probability of tokens[0].
  absl::Span<const char> last_hidden;
  std::optional<SampleRow> sample;  // the draw after the last token, if any is wanted
  // Position of the first token whose log-probability, given all before it, is wanted.
  std::optional<int64_t> logprobs_from;

  // --- Filled by Model::Run. ---
  HiddenRow hidden;             // of the last token
  SampledRow sampled;           // if wanted
  std::vector<float> logprobs;  // one for each token from logprobs_from on; NaN at position 0
  int64_t chunks_closed = 0;

  int64_t row_count() const { return static_cast<int64_t>(tokens.size()); }
  int64_t end_position() const { return first_position + row_count(); }
};

}  // namespace mneme

#endif  // MNEME_ENGINE_SEQUENCE_STEP_H_
