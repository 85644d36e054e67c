#ifndef MNEME_ENGINE_MODEL_MODEL_H_
#define MNEME_ENGINE_MODEL_MODEL_H_

// The decoder: one forward step over rows of many sessions, with their chunk updates.

#include <deque>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/loading/config.h"
#include "engine/loading/weights.h"
#include "engine/model/fast_weights.h"
#include "engine/session/sequence_step.h"
#include "engine/session/session_cache.h"
#include "kernels/backend.h"

namespace mneme {

struct ModelStepStats {
  int64_t rows = 0;
  int64_t chunks_closed = 0;
  UpdateCounts updates;
};

// Engine thread only.
class Model {
 public:
  // Rows of logits that are computed at a time: bounds the memory that they take, and how many
  // sequences of a step can draw.
  static constexpr int64_t kLogitRows = 256;

  // What is passed by reference must outlive the model. Its scratch memory for steps of up to
  // `max_step_tokens` rows and `max_step_tokens` sequences is allocated here and never later; the
  // backend's own comes with the first steps (warm_up.h).
  static absl::StatusOr<std::unique_ptr<Model>> Create(const ModelConfig& config,
                                                       const ModelWeights& weights,
                                                       Backend& backend, int64_t max_step_tokens);

  // Computes one step, the updates that waited before any rows, and waits for it. The sequences'
  // caches are of `pools`, the same in every step that is repeated (Stream::Repeat): in those of
  // one row for each sequence, which all draw. Sequences of one row should stand before longer
  // ones: backends compute them apart. INTERNAL if the device failed: no session's cache can be
  // relied on afterwards.
  absl::StatusOr<ModelStepStats> Run(const CachePools& pools, absl::Span<SequenceStep> sequences);

 private:
  struct Scratch {
    DeviceBuffer memory;
    Matrix x;        // [n, d] residual stream
    Matrix embed;    // [n, d] token embeddings, if they are the updates' target
    Matrix h;        // [n, d] normalised; or scratch memory
    Matrix qkv;      // [n, (Hq + 2 Hkv) head_dim]
    Matrix attn;     // [n, Hq head_dim]
    Matrix gate_up;  // [n, 2 f]
    Matrix z;        // [n, f]
    Matrix rope;     // float32 [n, head_dim]
    Matrix ends;     // [n, d] final hidden rows that somebody wants
    Matrix logits;   // float32 [kLogitRows, V]
    Matrix probs;    // float32 [1, kLogitRows]
    Matrix sampled;  // kLogitRows SampledRow
  };

  // The rows of a step, as the stream wants them; what it points to lives here.
  struct Rows {
    explicit Rows(absl::Span<SequenceStep> steps);
    int64_t count() const { return static_cast<int64_t>(token_ids.size()); }
    // Every sequence has one row and draws from it.
    bool all_decode() const;

    std::vector<int32_t> token_ids;
    std::vector<SequenceRows> sequences;
    // Those with tokens: first those that do not draw, so that the logits are of one range.
    std::vector<SequenceStep*> ends;
    std::vector<int32_t> end_rows;           // their last rows
    std::vector<SequenceStep*> from_hidden;  // those that draw without tokens
    std::vector<SequenceStep*> drawing;      // in the order of `samples`
    std::vector<SampleRow> samples;
    bool wants_logprobs = false;
  };

  // What RunLayers computes on.
  struct Pass {
    const CachePools& pools;
    int64_t n;                     // rows, padding included
    FastWeightStep* fast_weights;  // null without TTT
  };

  Model(const ModelConfig& config, const ModelWeights& weights, Backend& backend);
  absl::Status AllocateScratch(int64_t max_step_tokens);

  // The rows, padding included, of a step that is run by Stream::Repeat; 0: it is not.
  int64_t RepeatedRows(const Rows& rows) const;
  void CopyBlocks(const std::vector<BlockCopy>& copies);
  void ApplyWaiting(FastWeightStep& fast_weights);
  void RunRepeated(const Pass& pass);
  void RunOnce(const Pass& pass, Rows& rows);
  void RunLayers(const Pass& pass);
  void RunAttention(const Pass& pass, int layer);
  void RunMlp(const Pass& pass, int layer);
  Matrix Target(int64_t n) const { return (s_.embed.rows > 0 ? s_.embed : s_.h).Rows(0, n); }
  void FinalNorm(Matrix x, Matrix ends);
  void Draw(Matrix ends);
  // Queues the copies of what the step's ends are, and takes it apart once it is here.
  void FetchEnds(const Rows& rows);
  void TakeEnds(const Rows& rows) const;
  void RunLogProbs(SequenceStep& sequence, int64_t first_row);
  // Log-probabilities of the tokens at positions [from, to), at most kLogitRows of them.
  void RunLogProbSlice(SequenceStep& sequence, int64_t first_row, int64_t from, int64_t to);
  int64_t hidden_bytes() const { return config_.hidden_size * SizeOf(s_.ends.dtype); }
  // A list that stays where it is until the step is done.
  const std::vector<int32_t>& Keep(std::vector<int32_t> list);

  const ModelConfig& config_;
  const ModelWeights& weights_;
  Backend& backend_;
  const RopeTables rope_;
  const QkvShape qkv_shape_;
  std::vector<int> ttt_index_;  // [num_layers]: which TTT layer; -1: none
  std::unique_ptr<Stream> stream_;
  Scratch s_;
  std::vector<char> hidden_;         // [n, d], as s_.ends, on the host
  std::vector<SampledRow> sampled_;  // [kLogitRows]
  std::deque<std::vector<int32_t>> kept_;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_MODEL_MODEL_H_
