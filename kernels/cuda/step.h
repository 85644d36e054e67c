#ifndef MNEME_KERNELS_CUDA_STEP_H_
#define MNEME_KERNELS_CUDA_STEP_H_

// A declared step (RowBatch) as kernels see it: arrays in device memory, found through one
// StepView at an address that never changes, so that a recorded graph reads each step's own.

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cuda/launch.h"

namespace mneme::cuda {

// Pages of one KV group. Sequences are those of the step in their order, and one more of no page
// and no row for each row of padding (or of no sequence).
struct KvGroupView {
  const int32_t* slots;        // [padded_rows] page · page_tokens + place in it; −1: not stored
  const int32_t* page_indptr;  // [sequences + 1], into pages
  const int32_t* pages;        // page numbers of all sequences, one after another
  const int32_t* last_page_len;   // [sequences] slots used of the last page; 0 without pages
  const int32_t* first_position;  // [sequences] position of slot 0 of the first page
};

// Rows of a wave that see one ΔW, at most kDeltaGroupRows of them.
struct DeltaGroup {
  int32_t first_row;
  int32_t row_count;  // 0: padding
};
inline constexpr int kDeltaGroupRows = 8;

struct WaveView {
  int32_t num_groups;
  int32_t num_layers;         // of `deltas`; the TTT layers beyond have no ΔW in this wave
  const DeltaGroup* groups;   // [num_groups], of the segments of few rows (kMergeRows)
  const void* const* deltas;  // [num_layers][num_groups] null: ΔW = 0
  // Where KeepRows puts a row: its open chunk's block (null: not kept) and its place in the chunk.
  void* const* kept;           // [padded_rows]
  const int32_t* kept_offset;  // [padded_rows]
};

// A step's draws. Lists of all samples stand one after another; *_indptr has samples + 1 entries.
struct SampleView {
  int32_t num_samples;
  const float *temperature, *top_p, *min_p;  // [num_samples]
  const float *repetition_penalty, *presence_penalty, *frequency_penalty;
  const int32_t* top_k;
  const int32_t* top_logprobs;                       // −1: no log-probabilities
  const double* uniform;                             // UniformAt(seed, position)
  const int32_t *count_indptr, *count_ids, *counts;  // empty where nothing penalises
  const int32_t *bias_indptr, *bias_ids;
  const float* biases;
  const int32_t *forbidden_indptr, *forbidden_ids;
};

struct StepView {
  int32_t rows, padded_rows, num_sequences;  // num_sequences: padding's included
  const int32_t* token_ids;                  // [padded_rows], 0 for padding
  const int32_t* positions;                  // [padded_rows], 0 for padding
  const int32_t* row_sequence;               // [padded_rows]
  const int32_t* first_row;                  // [num_sequences + 1]
  const KvGroupView* groups;
  const WaveView* waves;
  SampleView samples;
};

// A segment of more rows than this is multiplied by W_down + ΔW merged; others in DeltaGroups.
inline constexpr int64_t kMergeRows = 16;

// The step on both sides of the bus. One thread.
class Step {
 public:
  static absl::StatusOr<std::unique_ptr<Step>> Create();
  ~Step();

  // Packs `batch` and sends it with one copy (two if it is larger than any seen). `page_tokens` is
  // that of all layers; 0, or another than the page tables are of: pages and slots are left out
  // where they would not fit. `num_ttt_layers`: how many there are for all that is known.
  // `repeatable`: the step is of Stream::Repeat, so that its only wave has one DeltaGroup for each
  // row, padding included, and a graph finds the same number in each. The host's buffers alternate,
  // so that what is under way is not overwritten.
  void Declare(const RowBatch& batch, int64_t page_tokens, int64_t num_ttt_layers, bool repeatable,
               const LaunchContext& context);

  // The same in every step; what it points to moves, so only kernels look into it.
  const StepView* device_view() const;
  // Of the step that was declared last, with pointers to host memory that stays as it is until the
  // next but one.
  const StepView& host_view() const;
  const RowBatch& batch() const;
  bool repeatable() const;

 private:
  struct Impl;
  Step();
  std::unique_ptr<Impl> impl_;
};

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_STEP_H_
