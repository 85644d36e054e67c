#ifndef MNEME_ENGINE_MODEL_H_
#define MNEME_ENGINE_MODEL_H_

// The decoder: one forward step over rows of many sessions, with their chunk updates.

#include <deque>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "engine/config.h"
#include "engine/fast_weights.h"
#include "engine/sequence_step.h"
#include "engine/session_cache.h"
#include "engine/weights.h"
#include "kernels/backend.h"

namespace mneme {

struct ModelStepStats {
  int64_t rows = 0;
  int64_t chunks_closed = 0;
  UpdateCounts updates;
  absl::Duration update_time;
};

// Engine thread only.
class Model {
 public:
  // Rows of logits that are computed at a time; bounds the memory that log-probabilities take.
  static constexpr int64_t kLogitRows = 64;

  // What is passed by reference must outlive the model. Scratch memory for steps of up to
  // `max_step_tokens` rows and `max_step_tokens` sequences is allocated here and never later.
  static absl::StatusOr<std::unique_ptr<Model>> Create(const ModelConfig& config,
                                                       const ModelWeights& weights,
                                                       const CachePools& pools, Backend& backend,
                                                       int64_t max_step_tokens);

  // Computes one step and waits for it. INTERNAL if the device failed: no session's cache can be
  // relied on afterwards.
  absl::StatusOr<ModelStepStats> Run(absl::Span<SequenceStep> sequences);

 private:
  struct Scratch {
    DeviceBuffer memory;
    Matrix x;        // [n, d] residual stream
    Matrix embed;    // [n, d] token embeddings, if they are the updates' target
    Matrix h;        // [n, d] normalised
    Matrix qkv;      // [n, (Hq + 2 Hkv) head_dim]
    Matrix attn;     // [n, Hq head_dim]
    Matrix gate_up;  // [n, 2 f]
    Matrix z;        // [n, f]
    Matrix rope;     // float32 [n, head_dim]
    Matrix ends;     // [n, d] final hidden rows that somebody wants
    Matrix logits;   // float32 [kLogitRows, V]
    Matrix probs;    // float32 [1, kLogitRows]
  };

  Model(const ModelConfig& config, const ModelWeights& weights, const CachePools& pools);
  absl::Status AllocateScratch(Backend& backend, int64_t max_step_tokens);

  // The rows of a step, as the stream wants them; what it points to lives here.
  struct Rows {
    explicit Rows(absl::Span<const SequenceStep> sequences);
    RowBatch batch() const { return {.token_ids = token_ids, .sequences = sequences}; }
    int64_t count() const { return static_cast<int64_t>(token_ids.size()); }
    std::vector<int32_t> token_ids;
    std::vector<SequenceRows> sequences;
  };

  void RunLayers(const Rows& rows, FastWeightStep* fast_weights);
  void RunAttention(int layer, int64_t n);
  void RunMlp(int layer, int64_t n, FastWeightStep* fast_weights);
  // Hidden rows and logits after each sequence's last token.
  void RunEnds(absl::Span<SequenceStep> sequences);
  void RunLogits(absl::Span<SequenceStep* const> wanting, int64_t first_end);
  void RunLogProbs(SequenceStep& sequence, int64_t first_row);
  // Log-probabilities of the tokens at positions [from, to), at most kLogitRows of them.
  void RunLogProbSlice(SequenceStep& sequence, int64_t first_row, int64_t from, int64_t to);
  // A list that stays where it is until the step is done.
  const std::vector<int32_t>& Keep(std::vector<int32_t> list);

  const ModelConfig& config_;
  const ModelWeights& weights_;
  const CachePools& pools_;
  const RopeTables rope_;
  const QkvShape qkv_shape_;
  std::vector<int> ttt_index_;  // [num_layers]: which TTT layer; -1: none
  std::unique_ptr<Stream> stream_;
  Scratch s_;
  std::deque<std::vector<int32_t>> kept_;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_MODEL_H_
