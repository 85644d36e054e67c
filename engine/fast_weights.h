#ifndef MNEME_ENGINE_FAST_WEIGHTS_H_
#define MNEME_ENGINE_FAST_WEIGHTS_H_

// The part of an MLP block that learns: the down-projection with each session's ΔW, and the chunk
// updates of In-Place TTT (DESIGN §1).

#include <vector>

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

// Runs the TTT layers of one step. A session may cross several chunk boundaries in a step: its
// rows are cut there, and the k-th parts of all sessions make wave k. Within a layer the waves run
// in order, apply and update in turn, so every row sees the ΔW of its chunk. One thread.
class FastWeightStep {
 public:
  // Cuts `sequences` (rows consecutive in this order) into waves. config.ttt is present; all three
  // must outlive the step.
  FastWeightStep(const ModelConfig& config, const CachePools& pools,
                 absl::Span<SequenceStep> sequences);

  // What the step declares of its fast weights; see RowBatch.
  absl::Span<const absl::Span<const ChunkSegment>> waves() const { return declared_; }
  // There is one wave, and its updates are of rows that are kept, so that they can wait until all
  // layers are computed.
  bool updates_can_wait() const;

  // x += z (W_down + ΔW)ᵀ, chunk by chunk, with the updates between; `layer` counts TTT layers.
  // target [n, d], z [n, f], x [n, d].
  void RunLayer(Stream& stream, const LayerWeights& weights, int64_t layer, Matrix target, Matrix z,
                Matrix x);
  // The two halves of RunLayer for one wave.
  void Apply(Stream& stream, const LayerWeights& weights, int64_t layer, int64_t wave,
             Matrix target, Matrix z, Matrix x);
  void Update(Stream& stream, const LayerWeights& weights, int64_t layer, int64_t wave,
              Matrix target, Matrix z);

  // Valid after the stream's Synchronize.
  UpdateCounts counts() const;
  // Sessions' chunks that this step closes.
  int64_t chunks_closed() const { return chunks_closed_; }

 private:
  // A chunk that this step closes and learns.
  struct LearntChunk {
    SessionCache* cache = nullptr;
    const LearningControls* controls = nullptr;
    int64_t first_row = 0;       // of the step, if `in_step`
    bool in_step = false;        // all its rows are of this step and are not kept
    bool delta_is_zero = false;  // before the update
  };
  struct Wave {
    std::vector<ChunkSegment> segments;
    std::vector<LearntChunk> learnt;
  };

  void AddSegments(SequenceStep& sequence, int64_t first_row);
  ChunkUpdate MakeUpdate(int64_t layer, const LearntChunk& chunk, Matrix target, Matrix z) const;

  const TttConfig& ttt_;
  const CachePools& pools_;
  std::vector<Wave> waves_;
  std::vector<absl::Span<const ChunkSegment>> declared_;
  int64_t chunks_closed_ = 0;
  std::vector<std::vector<ChunkUpdateResult>> results_;  // filled by the stream
};

}  // namespace mneme

#endif  // MNEME_ENGINE_FAST_WEIGHTS_H_
