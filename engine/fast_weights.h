#ifndef MNEME_ENGINE_FAST_WEIGHTS_H_
#define MNEME_ENGINE_FAST_WEIGHTS_H_

// The part of an MLP block that learns: the down-projection with each session's ΔW, and the chunk
// updates of In-Place TTT (DESIGN §1).

#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "engine/config.h"
#include "engine/sequence_step.h"
#include "engine/weights.h"
#include "kernels/backend.h"

namespace mneme {

// Counts of one step, over all sessions and layers.
struct UpdateCounts {
  int64_t updates = 0;
  int64_t clipped = 0;
  int64_t skipped = 0;
};

// Rows of a step that one session contributes to one chunk.
struct ChunkSegment {
  SequenceStep* sequence = nullptr;
  int64_t first_row = 0;  // of the step
  int64_t row_count = 0;
  int64_t chunk_offset = 0;  // of the first row within its chunk
  bool closes = false;       // the last row is the chunk's C-th

  int64_t last_position() const;  // absolute, of the last row
  int64_t first_row_of_sequence = 0;
};

// Runs the TTT layers of one step. A session may cross several chunk boundaries in a step: its
// rows are cut there, and the k-th parts of all sessions make wave k. Within a layer the waves run
// in order, apply and update in turn, so every row sees the ΔW of its chunk. One thread.
class FastWeightStep {
 public:
  // Cuts `sequences` (rows consecutive in this order) into waves. Without TTT: config.ttt absent.
  FastWeightStep(const ModelConfig& config, absl::Span<SequenceStep> sequences);

  // x += z (W_down + ΔW)ᵀ, chunk by chunk, with the updates between; `layer` counts TTT layers.
  // target [n, d], z [n, f], x [n, d].
  void RunLayer(Stream& stream, const LayerWeights& weights, int64_t layer, Matrix target, Matrix z,
                Matrix x);

  // Valid after the stream's Synchronize.
  UpdateCounts counts() const;
  // Sessions' chunks that this step closes.
  int64_t chunks_closed() const { return chunks_closed_; }
  // Host time spent in queueing updates; on a device that runs eagerly, their time.
  absl::Duration update_time() const { return update_time_; }

 private:
  using Wave = std::vector<ChunkSegment>;

  void AddSegments(SequenceStep& sequence, int64_t first_row);
  void Apply(Stream& stream, const LayerWeights& weights, int64_t layer, const Wave& wave, Matrix z,
             Matrix x);
  void Update(Stream& stream, const LayerWeights& weights, int64_t layer, const Wave& wave,
              Matrix target, Matrix z);
  // Keeps a segment's rows in the session's chunk rows.
  void KeepRows(Stream& stream, int64_t layer, const ChunkSegment& segment, Matrix target,
                Matrix z);
  ChunkUpdate MakeUpdate(int64_t layer, const ChunkSegment& segment, Matrix target, Matrix z);

  const TttConfig& ttt_;
  std::vector<Wave> waves_;
  int64_t chunks_closed_ = 0;
  std::vector<std::vector<ChunkUpdateResult>> results_;  // filled by the stream
  absl::Duration update_time_;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_FAST_WEIGHTS_H_
