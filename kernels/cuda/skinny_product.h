#ifndef MNEME_KERNELS_CUDA_SKINNY_PRODUCT_H_
#define MNEME_KERNELS_CUDA_SKINNY_PRODUCT_H_

// Products of few rows, near the read bandwidth.

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cuda/launch.h"

namespace mneme::cuda {

// Rows up to which RunSkinny is faster than cuBLASLt.
inline constexpr int64_t kSkinnyRows = 8;

// out = x Wᵀ + bias (+ out if accumulate), of RMSNorm(x) if there is a norm; or, gated,
// out [rows, f] = silu(gate) ⊙ up, gate and up being the columns of x Wᵀ [rows, 2 f].
struct SkinnyProduct {
  Matrix x;  // [rows, k]
  RowNorm norm;
  Matrix h;  // bf16 [rows, k]: gets RMSNorm(x), if the norm says that it is wanted
  const void* weight = nullptr;  // [n, k] bf16, contiguous; n: out.cols, or twice that if gated
  const void* bias = nullptr;    // float32 [n] or null; none if gated
  bool accumulate = false;       // not if gated
  bool gated = false;
  Matrix out;  // bf16; or float32 if not gated
};

// Whether RunSkinny takes `product`, its weight being aligned to 16 bytes: rows ≤ kSkinnyRows of
// bf16, k a multiple of 8; with a norm, rows that fit a block's shared memory whole, and an `h` of
// aligned rows, if it is wanted.
bool IsSkinny(const SkinnyProduct& product);

// Deterministic. Reads weights before the kernel in front has ended: no kernel writes them.
// `workspace`: SkinnyWorkspaceBytes, zeroed once and left zeroed (arrival counters) or overwritten
// (partial sums).
void RunSkinny(const SkinnyProduct& product, void* workspace, const LaunchContext& context);
int64_t SkinnyWorkspaceBytes();

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_SKINNY_PRODUCT_H_
