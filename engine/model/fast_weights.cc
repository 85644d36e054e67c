#include "engine/model/fast_weights.h"

#include <algorithm>

namespace mneme {

FastWeightStep::FastWeightStep(const ModelConfig& config, const CachePools& pools,
                               absl::Span<SequenceStep> sequences)
    : ttt_(*config.ttt), pools_(pools) {
  int64_t first_row = 0;
  for (SequenceStep& sequence : sequences) {
    AddWaiting(sequence);
    AddSegments(sequence, first_row);
    first_row += sequence.row_count();
    chunks_closed_ += sequence.chunks_closed;
  }
  for (const Wave& wave : waves_) declared_.emplace_back(wave.segments);
}

void FastWeightStep::AddWaiting(const SequenceStep& sequence) {
  if (sequence.updates.size() > waiting_.size()) waiting_.resize(sequence.updates.size());
  for (size_t i = 0; i < sequence.updates.size(); ++i) {
    LearntChunk chunk = Learn(sequence, sequence.updates[i].controls);
    chunk.rows = sequence.updates[i].rows;
    waiting_[i].push_back(chunk);
  }
}

void FastWeightStep::AddSegments(SequenceStep& sequence, int64_t first_row) {
  int64_t done = 0;
  for (size_t wave = 0; done < sequence.row_count(); ++wave) {
    if (wave == waves_.size()) waves_.emplace_back();
    done += AddSegment(sequence, done, first_row + done, waves_[wave]);
  }
}

int64_t FastWeightStep::AddSegment(SequenceStep& sequence, int64_t done, int64_t first_row,
                                   Wave& wave) {
  SessionCache& cache = *sequence.cache;
  const int64_t offset = (sequence.first_position + done) % ttt_.chunk;
  const int64_t rest = sequence.row_count() - done;
  // Provisional rows all see the ΔW of now: they are one segment, whatever its length.
  const int64_t rows = sequence.provisional ? rest : std::min(ttt_.chunk - offset, rest);
  ChunkSegment segment = {.first_row = first_row, .row_count = rows, .chunk_offset = offset};
  if (cache.deltas_written()) segment.deltas = cache.deltas();

  const bool closes = !sequence.provisional && offset + rows == ttt_.chunk;
  const LearningControls& controls =
      sequence.controls->At(sequence.first_position + done + rows - 1);
  const bool learns = closes && !controls.freeze;
  const bool waits = learns && rows == rest;
  // A chunk that lies whole within this step, with rows behind it, is learnt from where it is.
  const bool kept = !sequence.provisional && (!closes || offset > 0 || waits);
  if (kept) segment.kept = cache.open_rows();
  wave.segments.push_back(segment);
  if (closes) ++sequence.chunks_closed;
  if (learns && !waits) {
    LearntChunk chunk = Learn(sequence, controls);
    chunk.rows = segment.kept;
    chunk.first_row = first_row;
    wave.learnt.push_back(chunk);
  }
  return rows;
}

FastWeightStep::LearntChunk FastWeightStep::Learn(const SequenceStep& sequence,
                                                  const LearningControls& controls) {
  LearntChunk chunk = {.cache = sequence.cache, .controls = controls};
  chunk.delta_is_zero = !sequence.cache->deltas_written();
  sequence.cache->MarkDeltasWritten();
  return chunk;
}

void FastWeightStep::ApplyWaiting(Stream& stream, const LayerWeights& weights, int64_t layer) {
  for (const auto& chunks : waiting_) Update(stream, weights, layer, chunks, {}, {});
}

void FastWeightStep::RunLayer(Stream& stream, const LayerWeights& weights, int64_t layer,
                              Matrix target, Matrix z, Matrix x) {
  const ChunkRows rows = {target, pools_.ChunkTargetOffset(layer), z, pools_.ChunkZOffset(layer)};
  for (size_t i = 0; i < waves_.size(); ++i) {
    const auto wave = static_cast<int64_t>(i);
    stream.DownProjectAndKeep(wave, layer, rows, *weights.down, x);
    Update(stream, weights, layer, waves_[i].learnt, target, z);
  }
}

void FastWeightStep::Update(Stream& stream, const LayerWeights& weights, int64_t layer,
                            const std::vector<LearntChunk>& chunks, Matrix target, Matrix z) {
  if (chunks.empty()) return;
  std::vector<ChunkUpdate> updates;
  for (const LearntChunk& chunk : chunks) updates.push_back(MakeUpdate(layer, chunk, target, z));
  const int64_t d = weights.down->out_features();
  const FastWeightLayer ttt_layer = {.conv = {weights.ttt_conv.data(), DType::kF32, d, 5, 5},
                                     .projection = weights.ttt_projection.get(),
                                     .learning_rate = ttt_.learning_rate,
                                     .down_norm = weights.down_norm};
  results_.emplace_back(updates.size());
  stream.UpdateFastWeights(ttt_layer, updates, results_.back().data());
}

ChunkUpdate FastWeightStep::MakeUpdate(int64_t layer, const LearntChunk& chunk, Matrix target,
                                       Matrix z) const {
  const bool kept = chunk.rows != nullptr;
  return {.target = kept ? pools_.ChunkTarget(chunk.rows, layer)
                         : target.Rows(chunk.first_row, ttt_.chunk),
          .z = kept ? pools_.ChunkZ(chunk.rows, layer) : z.Rows(chunk.first_row, ttt_.chunk),
          .delta = chunk.cache->delta(layer),
          .delta_is_zero = chunk.delta_is_zero,
          .lr_scale = chunk.controls.lr_scale,
          .clip_norm = chunk.controls.clip_norm,
          .decay = chunk.controls.decay,
          .max_relative_norm = chunk.controls.max_relative_norm};
}

UpdateCounts FastWeightStep::counts() const {
  UpdateCounts counts;
  for (const auto& results : results_) {
    for (const ChunkUpdateResult& result : results) {
      ++counts.updates;
      counts.clipped += result.clipped ? 1 : 0;
      counts.skipped += result.skipped ? 1 : 0;
    }
  }
  return counts;
}

}  // namespace mneme
