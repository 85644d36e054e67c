#ifndef MNEME_ENGINE_SESSION_SEQUENCE_STEP_H_
#define MNEME_ENGINE_SESSION_SEQUENCE_STEP_H_

// What one session takes part with in one step, and what comes of it.

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "engine/session/control_log.h"
#include "engine/session/session_cache.h"
#include "kernels/sampling.h"

namespace mneme {

// The final hidden row [d] of a token, as the backend's activations are: bytes of their dtype.
using HiddenRow = std::vector<char>;

// A closed chunk that is still to be learnt.
struct WaitingUpdate {
  int64_t chunk = 0;          // its number, from 0
  void* rows = nullptr;       // device: the block in which its rows were kept
  LearningControls controls;  // those that govern it
};

// One sequence in a step: closed chunks to be learnt, then rows. The cache has pages for all rows,
// a block for the rows of the last chunk unless that closes frozen, and deltas if a chunk learns
// (ComputedState::Prepare). What is pointed to must live until the step is done.
struct SequenceStep {
  SessionCache* cache = nullptr;
  const ControlLog* controls = nullptr;
  // Blocks that were shared, in the order of the step's work: ΔW is copied before the updates,
  // pages and rows of open chunks after them and before the rows.
  std::vector<BlockCopy> delta_copies, row_copies;
  // In order; all of the step's are applied, in every TTT layer, before any of its rows.
  std::vector<WaitingUpdate> updates;
  std::vector<int32_t> tokens;  // may be empty: updates only, or a draw after `last_hidden`
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

#endif  // MNEME_ENGINE_SESSION_SEQUENCE_STEP_H_
