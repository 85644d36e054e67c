#ifndef MNEME_KERNELS_CUDA_ATTENTION_DECODE_H_
#define MNEME_KERNELS_CUDA_ATTENTION_DECODE_H_

// Decode attention of our own: sequences with one row each, whatever their lengths, in one kernel
// that finds its share of the work in the step's device arrays. So a graph needs no plan for it.

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/step.h"

namespace mneme::cuda {

// Whether DecodeAttention takes layers of such a shape: bf16, head size 64 or 128, up to eight
// query heads for a KV head, pages of a multiple of 16 tokens. Data is aligned to 16 bytes.
bool IsDecodeShape(const AttentionShape& shape);

// What RotateAndStore takes beyond attention, where DecodeAttention is to do its work as well.
struct DecodeRotation {
  QkNorm norm;  // weights aligned to 8 bytes
  Matrix rope;  // float32 [padded_rows, head_dim], rows aligned to 8 bytes
};

// For `sequences` sequences from `first_sequence` on, whose rows are one each from `first_row` on.
// Sequences without pages (padding) give zeros. Deterministic. `workspace`: DecodeWorkspaceBytes,
// zeroed once and left zeroed (arrival counters) or overwritten (partial results); of one stream.
// `rotation`: null if RotateAndStore has been done.
void DecodeAttention(const StepView* step, int64_t first_sequence, int64_t sequences,
                     int64_t first_row, Matrix qkv, const DecodeRotation* rotation,
                     const AttentionShape& shape, void* kv_data, Matrix out, void* workspace,
                     const LaunchContext& context);
int64_t DecodeWorkspaceBytes();

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_ATTENTION_DECODE_H_
