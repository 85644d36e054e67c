#include "kernels/bench/bench_step.h"

#include <numeric>

namespace mneme {

BenchStep::BenchStep(int64_t sequences, int64_t rows, int64_t past)
    : pages_((past + rows + kPageTokens - 1) / kPageTokens),
      tokens_(static_cast<size_t>(sequences * rows)),
      page_numbers_(static_cast<size_t>(sequences * pages_)) {
  std::iota(page_numbers_.begin(), page_numbers_.end(), 0);
  const absl::Span<const int32_t> numbers = page_numbers_;
  for (int64_t i = 0; i < sequences; ++i) {
    tables_.push_back(
        {numbers.subspan(static_cast<size_t>(i * pages_), static_cast<size_t>(pages_)), 0});
  }
  for (int64_t i = 0; i < sequences; ++i) {
    sequences_.push_back({i * rows, rows, past, {&tables_[static_cast<size_t>(i)], 1}});
  }
}

void BenchStep::SetDeltas(const std::vector<void*>& deltas) {
  deltas_.assign(deltas.begin(), deltas.end());
  const size_t layers = deltas_.size() / sequences_.size();
  const absl::Span<const void* const> all = deltas_;
  for (size_t i = 0; i < sequences_.size(); ++i) {
    segments_.push_back({.first_row = sequences_[i].first_row,
                         .row_count = sequences_[i].row_count,
                         .deltas = all.subspan(i * layers, layers)});
  }
  waves_ = {segments_};
}

void BenchStep::SetKept(void* blocks, int64_t block_bytes) {
  auto* block = static_cast<char*>(blocks);
  for (ChunkSegment& segment : segments_) {
    segment.kept = block;
    block += block_bytes;
  }
}

void BenchStep::SetSamples(const SamplingParams& params) {
  params_ = {params};
  for (int64_t i = 0; i < rows(); ++i) {
    samples_.push_back({.params = &params_[0], .position = static_cast<uint64_t>(i)});
  }
}

RowBatch BenchStep::batch() const {
  return {.token_ids = tokens_,
          .sequences = sequences_,
          .padded_rows = rows(),
          .waves = waves_,
          .samples = samples_};
}

}  // namespace mneme
