// The fast weights' part of CudaStream.

#include <algorithm>

#include "base/check.h"
#include "kernels/cuda/cuda_stream.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/skinny_product.h"

namespace mneme::cuda {
namespace {

// RunSkinny may read a weight before the kernel in front, which merged it, has ended.
static_assert(kMergeRows >= kSkinnyRows);

const void* DeltaOf(const ChunkSegment& segment, int64_t layer) {
  const auto i = static_cast<size_t>(layer);
  return i < segment.deltas.size() ? segment.deltas[i] : nullptr;
}

bool IsMerged(const ChunkSegment& segment, int64_t layer) {
  return segment.row_count > kMergeRows && DeltaOf(segment, layer) != nullptr;
}

}  // namespace

DeltaLayout CudaStream::LayoutOf(int64_t d, int64_t f) const {
  return {.accumulate = options_.delta_accumulate, .read = options_.delta_read, .d = d, .f = f};
}

void CudaStream::DownProject(int64_t wave, int64_t layer, Matrix z, const PackedMatrix& w_down,
                             Matrix y) {
  Project(wave, layer, z, w_down, y, /*keep=*/nullptr);
}

void CudaStream::DownProjectAndKeep(int64_t wave, int64_t layer, const ChunkRows& rows,
                                    const PackedMatrix& w_down, Matrix y) {
  if (!Project(wave, layer, rows.z, w_down, y, &rows)) KeepRows(wave, rows);
}

bool CudaStream::Project(int64_t wave, int64_t layer, Matrix z, const PackedMatrix& w_down,
                         Matrix y, const ChunkRows* keep) {
  num_ttt_layers_ = std::max(num_ttt_layers_, layer + 1);
  last_down_ = {wave, layer, static_cast<const CudaPackedMatrix*>(&w_down)};
  if (!StepReady()) return false;
  MNEME_CHECK(wave < static_cast<int64_t>(batch_.waves.size()));
  const auto& weight = static_cast<const CudaPackedMatrix&>(w_down);
  if (repeatable_) {
    Multiply(z, weight.data(), nullptr, true, y);
  } else {
    MultiplyWave(wave, layer, z, weight, y);
  }
  // Layers that the step's arrays do not have are those of which no row has a ΔW.
  const WaveView& view = step_->host_view().waves[wave];
  if (view.num_groups == 0 || layer >= view.num_layers) return false;
  return ApplyDeltas(step_->device_view(), wave, view.num_groups, layer,
                     LayoutOf(weight.out_features(), weight.in_features()), z, y, keep,
                     delta_workspace_.get(), context_);
}

void CudaStream::MultiplyWave(int64_t wave, int64_t layer, Matrix z, const CudaPackedMatrix& w_down,
                              Matrix y) {
  int64_t first = 0, count = 0;  // rows that W_down alone is due for
  const auto flush = [&] {
    if (count > 0)
      Multiply(z.Rows(first, count), w_down.data(), nullptr, true, y.Rows(first, count));
    count = 0;
  };
  for (const ChunkSegment& segment : batch_.waves[static_cast<size_t>(wave)]) {
    if (IsMerged(segment, layer)) {
      const void* const merged = Merged(DeltaOf(segment, layer), w_down);
      if (merged == nullptr) return;
      Multiply(z.Rows(segment.first_row, segment.row_count), merged, nullptr, true,
               y.Rows(segment.first_row, segment.row_count));
      continue;
    }
    if (count > 0 && segment.first_row != first + count) flush();
    if (count == 0) first = segment.first_row;
    count += segment.row_count;
  }
  flush();
}

const void* CudaStream::Merged(const void* delta, const CudaPackedMatrix& w_down) {
  void* const merged = merged_.Get(w_down.size_bytes(), &errors_);
  if (merged == nullptr || (merged_delta_ == delta && merged_weight_ == &w_down)) return merged;
  MergeDelta(w_down.data(), w_down.dtype(), delta,
             LayoutOf(w_down.out_features(), w_down.in_features()), merged, context_);
  merged_delta_ = delta;
  merged_weight_ = &w_down;
  return merged;
}

DeltaMerge CudaStream::MergeAhead(absl::Span<const ChunkUpdate> updates) {
  const auto next = static_cast<size_t>(last_down_.wave + 1);
  const bool reads_accumulated = options_.delta_read == options_.delta_accumulate;
  if (last_down_.weight == nullptr || next >= batch_.waves.size() || !reads_accumulated) return {};
  for (const ChunkSegment& segment : batch_.waves[next]) {
    if (!IsMerged(segment, last_down_.layer)) continue;
    // merged_ holds one: what another segment wants first must not be in its way.
    const void* const delta = DeltaOf(segment, last_down_.layer);
    const bool updated =
        std::any_of(updates.begin(), updates.end(),
                    [&](const ChunkUpdate& update) { return update.delta == delta; });
    if (!updated) return {};
    return {delta, last_down_.weight->data(),
            merged_.Get(last_down_.weight->size_bytes(), &errors_)};
  }
  return {};
}

void CudaStream::KeepRows(int64_t wave, const ChunkRows& rows) {
  if (!StepReady()) return;
  MNEME_CHECK(wave < static_cast<int64_t>(batch_.waves.size()));
  const auto& segments = batch_.waves[static_cast<size_t>(wave)];
  const bool any = std::any_of(segments.begin(), segments.end(),
                               [](const ChunkSegment& segment) { return segment.kept != nullptr; });
  if (!any && !repeatable_) return;  // what is recorded must do for later steps
  cuda::KeepRows(step_->device_view(), wave, rows, context_);
}

void CudaStream::UpdateFastWeights(const FastWeightLayer& layer,
                                   absl::Span<const ChunkUpdate> updates,
                                   ChunkUpdateResult* results) {
  if (updates.empty() || !Ready()) return;
  const auto bytes = static_cast<int64_t>(updates.size() * sizeof(ChunkUpdateResult));
  // Kernels write it themselves.
  auto* const written = static_cast<ChunkUpdateResult*>(Stage(bytes));
  if (written == nullptr) return;
  staging_->DeliverLater(written, results, bytes);
  const void* const projection =
      layer.projection == nullptr ? nullptr
                                  : static_cast<const CudaPackedMatrix*>(layer.projection)->data();
  const DeltaMerge merge = MergeAhead(updates);
  updater_->Update(layer, projection, updates, merge, written, context_);
  // What merged_ held may have been updated.
  merged_delta_ = merge.delta;
  merged_weight_ = last_down_.weight;
}

void CudaStream::ReadDelta(const void* delta, Matrix out) {
  if (Ready()) cuda::ReadDelta(delta, LayoutOf(out.rows, out.cols), out, context_);
}

}  // namespace mneme::cuda
