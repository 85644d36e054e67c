#include "engine/fast_weights.h"

#include <algorithm>
#include <memory>

#include "absl/time/clock.h"

namespace mneme {

int64_t ChunkSegment::last_position() const {
  return sequence->first_position + (first_row - first_row_of_sequence) + row_count - 1;
}

FastWeightStep::FastWeightStep(const ModelConfig& config, absl::Span<SequenceStep> sequences)
    : ttt_(*config.ttt) {
  int64_t first_row = 0;
  for (SequenceStep& sequence : sequences) {
    if (sequence.row_count() > 0) AddSegments(sequence, first_row);
    first_row += sequence.row_count();
  }
}

void FastWeightStep::AddSegments(SequenceStep& sequence, int64_t first_row) {
  int64_t done = 0;
  for (size_t wave = 0; done < sequence.row_count(); ++wave) {
    const int64_t offset = (sequence.first_position + done) % ttt_.chunk;
    const int64_t rest = sequence.row_count() - done;
    // Provisional rows all see the ΔW of now: they are one segment, whatever its length.
    const int64_t rows = sequence.provisional ? rest : std::min(ttt_.chunk - offset, rest);
    const bool closes = !sequence.provisional && offset + rows == ttt_.chunk;
    if (wave == waves_.size()) waves_.emplace_back();
    waves_[wave].push_back({.sequence = &sequence,
                            .first_row = first_row + done,
                            .row_count = rows,
                            .chunk_offset = offset,
                            .closes = closes,
                            .first_row_of_sequence = first_row});
    if (closes) ++sequence.chunks_closed;
    done += rows;
  }
  chunks_closed_ += sequence.chunks_closed;
}

void FastWeightStep::RunLayer(Stream& stream, const LayerWeights& weights, int64_t layer,
                              Matrix target, Matrix z, Matrix x) {
  for (const Wave& wave : waves_) {
    Apply(stream, weights, layer, wave, z, x);
    const absl::Time begin = absl::Now();
    Update(stream, weights, layer, wave, target, z);
    update_time_ += absl::Now() - begin;
  }
}

void FastWeightStep::Apply(Stream& stream, const LayerWeights& weights, int64_t layer,
                           const Wave& wave, Matrix z, Matrix x) {
  std::vector<DeltaRows> rows;
  for (const ChunkSegment& segment : wave) {
    rows.push_back({.first_row = segment.first_row,
                    .row_count = segment.row_count,
                    .delta = segment.sequence->cache->delta(layer)});
  }
  stream.DownProject(z, *weights.down, rows, x);
}

void FastWeightStep::Update(Stream& stream, const LayerWeights& weights, int64_t layer,
                            const Wave& wave, Matrix target, Matrix z) {
  std::vector<ChunkUpdate> updates;
  for (const ChunkSegment& segment : wave) {
    if (segment.sequence->provisional) continue;
    // A chunk that lies whole in this step is updated from where its rows are.
    if (!segment.closes || segment.chunk_offset > 0) {
      KeepRows(stream, layer, segment, target, z);
    }
    if (!segment.closes || segment.sequence->controls->At(segment.last_position()).freeze) continue;
    updates.push_back(MakeUpdate(layer, segment, target, z));
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

void FastWeightStep::KeepRows(Stream& stream, int64_t layer, const ChunkSegment& segment,
                              Matrix target, Matrix z) {
  const SessionCache& cache = *segment.sequence->cache;
  stream.CopyRows(target.Rows(segment.first_row, segment.row_count),
                  cache.chunk_target(layer).Rows(segment.chunk_offset, segment.row_count));
  stream.CopyRows(z.Rows(segment.first_row, segment.row_count),
                  cache.chunk_z(layer).Rows(segment.chunk_offset, segment.row_count));
}

ChunkUpdate FastWeightStep::MakeUpdate(int64_t layer, const ChunkSegment& segment, Matrix target,
                                       Matrix z) {
  SessionCache& cache = *segment.sequence->cache;
  const LearningControls& controls = segment.sequence->controls->At(segment.last_position());
  const bool in_step = segment.chunk_offset == 0;
  const ChunkUpdate update = {
      .target = in_step ? target.Rows(segment.first_row, ttt_.chunk) : cache.chunk_target(layer),
      .z = in_step ? z.Rows(segment.first_row, ttt_.chunk) : cache.chunk_z(layer),
      .delta = cache.mutable_delta(layer),
      .delta_is_zero = !cache.delta_written(layer),
      .lr_scale = controls.lr_scale,
      .clip_norm = controls.clip_norm,
      .decay = controls.decay,
      .max_relative_norm = controls.max_relative_norm};
  cache.MarkDeltaWritten(layer);
  return update;
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
