#ifndef MNEME_KERNELS_CUDA_SAMPLE_H_
#define MNEME_KERNELS_CUDA_SAMPLE_H_

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/step.h"

namespace mneme::cuda {

// A row of logits lies in the shared memory of a cluster of multiprocessors while it is sampled.
inline constexpr int64_t kMaxSampledVocab = 400000;

// Draws the step's samples by the rule of kernels/sampling.h: logits float32 [m, V], which stay as
// they are, V ≤ kMaxSampledVocab; out [m]. Reads what to draw from the step's device arrays, so
// that a graph draws each step's own; rows beyond num_samples are left alone. Deterministic.
void SampleRows(const StepView* step, Matrix logits, SampledRow* out, const LaunchContext& context);

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_SAMPLE_H_
