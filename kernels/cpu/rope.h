#ifndef MNEME_KERNELS_CPU_ROPE_H_
#define MNEME_KERNELS_CPU_ROPE_H_

// Rotary position embedding of one row or head, vectorised.

#include <cstdint>

#include "kernels/backend.h"

namespace mneme {

// Cosines, then sines, of `position` at each frequency, times the attention factor: out
// [2 · frequencies]. The angle is reduced in double precision, as positions reach millions.
void ComputeRopeRow(const RopeSpec& rope, int64_t position, float* out);

// Normalises `head` [head_dim] in place by RMSNorm with `weight`, if not null, and rotates it by
// `rope` [head_dim] of its row.
void NormaliseAndRotateHead(const float* weight, float epsilon, const float* rope, int64_t head_dim,
                            float* head);

}  // namespace mneme

#endif  // MNEME_KERNELS_CPU_ROPE_H_
