#ifndef MNEME_KERNELS_CUDA_ROWS_H_
#define MNEME_KERNELS_CUDA_ROWS_H_

// Operations on rows: the Stream operations of the same names, on float32 or bf16 activations.

#include "kernels/backend.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/step.h"

namespace mneme::cuda {

// The widest heads that are rotated and attended with.
inline constexpr int64_t kMaxHeadDim = 256;

void Embed(const StepView* step, Matrix table, Matrix out, const LaunchContext& context);
// inverse_frequencies: device, double [head_dim / 2], as positions reach millions.
void ComputeRope(const StepView* step, const double* inverse_frequencies, double attention_factor,
                 Matrix out, const LaunchContext& context);
// qkv and kv are of the same dtype. head_dim: any even number up to kMaxHeadDim.
void RotateAndStore(const StepView* step, Matrix qkv, const QkvShape& shape, const QkNorm& norm,
                    Matrix rope, const KvLayer& kv, const LaunchContext& context);
void RmsNorm(Matrix in, const void* weight, float epsilon, Matrix out,
             const LaunchContext& context);
void SwiGlu(Matrix gate_up, Matrix z, const LaunchContext& context);
void CopyRows(Matrix from, Matrix to, const LaunchContext& context);
// rows, targets: device, int32 [out.rows].
void GatherRows(Matrix in, const int32_t* rows, Matrix out, const LaunchContext& context);
void TargetLogProbs(Matrix logits, const int32_t* targets, float* out,
                    const LaunchContext& context);
void KeepRows(const StepView* step, int64_t wave, const ChunkRows& rows,
              const LaunchContext& context);

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_ROWS_H_
