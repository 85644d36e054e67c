#ifndef MNEME_KERNELS_CUDA_STEP_PACKER_H_
#define MNEME_KERNELS_CUDA_STEP_PACKER_H_

// Turns a RowBatch into the arrays of a StepView, in one piece of host memory that is copied to the
// device as it is.

#include <cstdint>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/step.h"

namespace mneme::cuda {

// A StepView and what it points to that are views themselves.
struct StepViews {
  StepView step;
  std::vector<KvGroupView> groups;
  std::vector<WaveView> waves;
};

// One packing. The bytes begin with the StepView of the device; arrays follow.
class StepPacker {
 public:
  // As Step::Declare.
  StepPacker(const RowBatch& batch, int64_t page_tokens, int64_t num_ttt_layers, bool repeatable);

  // Bytes of the whole.
  int64_t bytes() const { return bytes_; }
  // Writes them to `host`, for a copy that is to lie at `device`, and returns the views whose
  // pointers are the host's.
  StepViews Pack(char* host, char* device);

 private:
  // Places all arrays, one after another, at the two addresses, and sets the views' pointers.
  void Place(char* host, char* device);
  template <typename T>
  void PlaceArray(int64_t count, const T** host, const T** device);
  void PlaceSamples();

  void FillRows();
  void FillGroup(const KvGroupView& group, size_t index);
  void FillWave(const WaveView& wave, size_t index);
  void FillSegmentGroups(const WaveView& wave, size_t index);
  void FillSamples();

  // Layers that the wave's arrays have.
  int64_t NumLayers(absl::Span<const ChunkSegment> wave) const;
  // Pages of a sequence that hold positions up to its last row.
  int64_t UsedPages(const SequenceRows& sequence, size_t group) const;
  // Calls visit(segment, first_row, row_count) for each DeltaGroup of a wave, in order.
  template <typename Visit>
  void ForDeltaGroups(size_t wave, const Visit& visit) const;

  const RowBatch& batch_;
  const int64_t page_tokens_;
  const int64_t num_ttt_layers_;
  const bool repeatable_;
  const int64_t rows_;
  const int64_t padded_rows_;
  const int64_t sequence_rows_;  // the first rows, which belong to sequences
  const int64_t num_sequences_;  // padding's included

  uintptr_t host_base_ = 0, device_base_ = 0;
  int64_t bytes_ = 0;
  StepViews host_, device_;
  const KvGroupView* placed_groups_ = nullptr;  // in host memory, for the device's views
  const WaveView* placed_waves_ = nullptr;
};

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_STEP_PACKER_H_
