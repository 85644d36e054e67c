#ifndef MNEME_KERNELS_CPU_ROW_LOOPS_H_
#define MNEME_KERNELS_CPU_ROW_LOOPS_H_

// Vectorised loops over one row, for the instructions that the processor has. Pointers need no
// alignment beyond their element's; input and output are the same row or do not overlap.

#include <cstdint>

namespace mneme {

// out = in / sqrt(mean(in²) + epsilon) ⊙ weight.
void RmsNormRow(const float* in, const float* weight, float epsilon, int64_t count, float* out);

// z = silu(gate) ⊙ up.
void SwiGluRow(const float* gate, const float* up, int64_t count, float* z);

// out = in, or out += in if `add`.
void PlaceRow(const float* in, int64_t count, bool add, float* out);

// Rounds to nearest even; NaN stays NaN.
void ConvertRowToBFloat16(const float* in, int64_t count, uint16_t* out);

// ln Σ exp(in[i]).
double LogSumExpRow(const float* in, int64_t count);

}  // namespace mneme

#endif  // MNEME_KERNELS_CPU_ROW_LOOPS_H_
