#ifndef MNEME_KERNELS_BENCH_BENCH_STEP_H_
#define MNEME_KERNELS_BENCH_BENCH_STEP_H_

#include <cstdint>
#include <vector>

#include "kernels/backend.h"

namespace mneme {

// A step of equally long sequences and all that its RowBatch points to. Move-only, as it points
// into itself.
class BenchStep {
 public:
  static constexpr int64_t kPageTokens = 16;

  // `sequences` sequences of `rows` rows each behind `past` positions; pages are numbered on.
  BenchStep(int64_t sequences, int64_t rows, int64_t past);
  BenchStep(BenchStep&&) = default;

  int64_t rows() const { return static_cast<int64_t>(tokens_.size()); }
  // Pages of one sequence.
  int64_t pages() const { return pages_; }
  // ΔW of the TTT layers of each sequence, as many for each of them.
  void SetDeltas(const std::vector<void*>& deltas);
  // After SetDeltas: the first sequence's rows begin the open chunk in `blocks`, the next one's the
  // chunk `block_bytes` behind it, and so on.
  void SetKept(void* blocks, int64_t block_bytes);
  // All rows draw with these parameters, which the step then owns.
  void SetSamples(const SamplingParams& params);
  RowBatch batch() const;

 private:
  int64_t pages_;
  std::vector<int32_t> tokens_, page_numbers_;
  std::vector<PageTable> tables_;
  std::vector<SequenceRows> sequences_;
  std::vector<const void*> deltas_;
  std::vector<ChunkSegment> segments_;
  std::vector<absl::Span<const ChunkSegment>> waves_;
  std::vector<SamplingParams> params_;
  std::vector<SampleRow> samples_;
};

}  // namespace mneme

#endif  // MNEME_KERNELS_BENCH_BENCH_STEP_H_
