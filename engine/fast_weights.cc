#include "engine/fast_weights.h"

#include <algorithm>

namespace mneme {

FastWeightStep::FastWeightStep(const ModelConfig& config, const CachePools& pools,
                               absl::Span<SequenceStep> sequences)
    : ttt_(*config.ttt), pools_(pools) {
  int64_t first_row = 0;
  for (SequenceStep& sequence : sequences) {
    AddSegments(sequence, first_row);
    first_row += sequence.row_count();
    chunks_closed_ += sequence.chunks_closed;
  }
  for (const Wave& wave : waves_) declared_.emplace_back(wave.segments);
}

void FastWeightStep::AddSegments(SequenceStep& sequence, int64_t first_row) {
  SessionCache& cache = *sequence.cache;
  int64_t done = 0;
  for (size_t wave = 0; done < sequence.row_count(); ++wave) {
    const int64_t offset = (sequence.first_position + done) % ttt_.chunk;
    const int64_t rest = sequence.row_count() - done;
    // Provisional rows all see the ΔW of now: they are one segment, whatever its length.
    const int64_t rows = sequence.provisional ? rest : std::min(ttt_.chunk - offset, rest);
    const bool closes = !sequence.provisional && offset + rows == ttt_.chunk;
    // A chunk that lies whole in this step is updated from where its rows are.
    const bool in_step = closes && offset == 0;
    const bool kept = !sequence.provisional && !in_step;
    if (wave == waves_.size()) waves_.emplace_back();
    ChunkSegment segment = {.first_row = first_row + done, .row_count = rows};
    if (cache.deltas_written()) segment.deltas = cache.deltas();
    if (kept) segment.kept = cache.chunk_rows();
    segment.chunk_offset = offset;
    waves_[wave].segments.push_back(segment);
    done += rows;
    if (!closes) continue;
    ++sequence.chunks_closed;
    const LearningControls& controls = sequence.controls->At(sequence.first_position + done - 1);
    if (controls.freeze) continue;
    waves_[wave].learnt.push_back({.cache = &cache,
                                   .controls = &controls,
                                   .first_row = segment.first_row,
                                   .in_step = in_step,
                                   .delta_is_zero = !cache.deltas_written()});
    cache.MarkDeltasWritten();
  }
}

bool FastWeightStep::updates_can_wait() const {
  return waves_.size() == 1 && std::none_of(waves_[0].learnt.begin(), waves_[0].learnt.end(),
                                            [](const LearntChunk& chunk) { return chunk.in_step; });
}

void FastWeightStep::RunLayer(Stream& stream, const LayerWeights& weights, int64_t layer,
                              Matrix target, Matrix z, Matrix x) {
  for (size_t wave = 0; wave < waves_.size(); ++wave) {
    Apply(stream, weights, layer, static_cast<int64_t>(wave), target, z, x);
    Update(stream, weights, layer, static_cast<int64_t>(wave), target, z);
  }
}

void FastWeightStep::Apply(Stream& stream, const LayerWeights& weights, int64_t layer, int64_t wave,
                           Matrix target, Matrix z, Matrix x) {
  stream.DownProject(wave, layer, z, *weights.down, x);
  stream.KeepRows(wave, target, pools_.ChunkTargetOffset(layer));
  stream.KeepRows(wave, z, pools_.ChunkZOffset(layer));
}

void FastWeightStep::Update(Stream& stream, const LayerWeights& weights, int64_t layer,
                            int64_t wave, Matrix target, Matrix z) {
  std::vector<ChunkUpdate> updates;
  for (const LearntChunk& chunk : waves_[static_cast<size_t>(wave)].learnt) {
    updates.push_back(MakeUpdate(layer, chunk, target, z));
  }
  if (updates.empty()) return;
  const FastWeightLayer ttt_layer = {
      .conv = {weights.ttt_conv.data(), DType::kF32, target.cols, 5, 5},
      .projection = weights.ttt_projection.get(),
      .learning_rate = ttt_.learning_rate,
      .down_norm = weights.down_norm};
  results_.emplace_back(updates.size());
  stream.UpdateFastWeights(ttt_layer, updates, results_.back().data());
}

ChunkUpdate FastWeightStep::MakeUpdate(int64_t layer, const LearntChunk& chunk, Matrix target,
                                       Matrix z) const {
  return {.target = chunk.in_step ? target.Rows(chunk.first_row, ttt_.chunk)
                                  : chunk.cache->chunk_target(layer),
          .z = chunk.in_step ? z.Rows(chunk.first_row, ttt_.chunk) : chunk.cache->chunk_z(layer),
          .delta = chunk.cache->mutable_delta(layer),
          .delta_is_zero = chunk.delta_is_zero,
          .lr_scale = chunk.controls->lr_scale,
          .clip_norm = chunk.controls->clip_norm,
          .decay = chunk.controls->decay,
          .max_relative_norm = chunk.controls->max_relative_norm};
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
