#ifndef MNEME_ENGINE_MODEL_FAST_WEIGHTS_H_
#define MNEME_ENGINE_MODEL_FAST_WEIGHTS_H_

// The part of an MLP block that learns: the down-projection with each session's ΔW, and the chunk
// updates of In-Place TTT (DESIGN §1).

#include <vector>

#include "absl/types/span.h"
#include "engine/loading/config.h"
#include "engine/loading/weights.h"
#include "engine/session/sequence_step.h"
#include "engine/stats.h"
#include "kernels/backend.h"

namespace mneme {

// Runs the TTT layers of one step. Updates that waited come first, in all layers, batched over
// sessions: the k-th of all sessions together. Then come the rows. A session may cross several
// chunk boundaries in a step: its rows are cut there, and the k-th parts of all sessions make wave
// k. Within a layer the waves run in order, apply and update in turn, so every row sees the ΔW of
// its chunk. A chunk that a session's rows end with is only kept, for a later step. One thread.
class FastWeightStep {
 public:
  // Cuts `sequences` (rows consecutive in this order) into waves. config.ttt is present; all three
  // must outlive the step.
  FastWeightStep(const ModelConfig& config, const CachePools& pools,
                 absl::Span<SequenceStep> sequences);

  // What the step declares of its fast weights; see RowBatch.
  absl::Span<const absl::Span<const ChunkSegment>> waves() const { return declared_; }
  // The updates that waited; before any rows. `layer` counts TTT layers.
  void ApplyWaiting(Stream& stream, const LayerWeights& weights, int64_t layer);
  // x += z (W_down + ΔW)ᵀ, chunk by chunk, with the updates between. target [n, d], z [n, f],
  // x [n, d].
  void RunLayer(Stream& stream, const LayerWeights& weights, int64_t layer, Matrix target, Matrix z,
                Matrix x);

  // Over all sessions and layers; valid after the stream's Synchronize.
  UpdateCounts counts() const;
  // Sessions' chunks that this step closes.
  int64_t chunks_closed() const { return chunks_closed_; }

 private:
  // A chunk that this step learns.
  struct LearntChunk {
    SessionCache* cache = nullptr;
    LearningControls controls;
    void* rows = nullptr;        // the block that holds them; null: they are the step's own
    int64_t first_row = 0;       // of the step, if they are
    bool delta_is_zero = false;  // before the update
  };
  struct Wave {
    std::vector<ChunkSegment> segments;
    std::vector<LearntChunk> learnt;
  };

  void AddWaiting(const SequenceStep& sequence);
  void AddSegments(SequenceStep& sequence, int64_t first_row);
  // Adds the rows of `sequence` behind the first `done`, as far as they see the same ΔW; returns
  // how many. They are those of the step from `first_row` on.
  int64_t AddSegment(SequenceStep& sequence, int64_t done, int64_t first_row, Wave& wave);
  // `sequence` learns a chunk with these controls.
  static LearntChunk Learn(const SequenceStep& sequence, const LearningControls& controls);
  void Update(Stream& stream, const LayerWeights& weights, int64_t layer,
              const std::vector<LearntChunk>& chunks, Matrix target, Matrix z);
  ChunkUpdate MakeUpdate(int64_t layer, const LearntChunk& chunk, Matrix target, Matrix z) const;

  const TttConfig& ttt_;
  const CachePools& pools_;
  std::vector<std::vector<LearntChunk>> waiting_;  // [k]: the k-th of each session
  std::vector<Wave> waves_;
  std::vector<absl::Span<const ChunkSegment>> declared_;
  int64_t chunks_closed_ = 0;
  std::vector<std::vector<ChunkUpdateResult>> results_;  // filled by the stream
};

}  // namespace mneme

#endif  // MNEME_ENGINE_MODEL_FAST_WEIGHTS_H_
