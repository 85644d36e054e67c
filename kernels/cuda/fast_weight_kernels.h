#ifndef MNEME_KERNELS_CUDA_FAST_WEIGHT_KERNELS_H_
#define MNEME_KERNELS_CUDA_FAST_WEIGHT_KERNELS_H_

// The kernels of a batch of updates, in the order they run: ConvolveTargets, (the projection),
// FindMaxima, (U), MeasureUpdates, ApplyUpdates, FinishUpdates. What becomes
// of an update is decided on the device.

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cuda/delta.h"
#include "kernels/cuda/launch.h"

namespace mneme::cuda {

// Updates of one batch: each has its own U [d, f] in scratch memory.
inline constexpr int kUpdateBatch = 4;
inline constexpr int kMeasureBlocks = 256;

struct UpdateTask {
  const void* target;  // t [rows, d]
  const void* z;       // [rows, f]
  int64_t target_stride, z_stride;
  int64_t rows;       // C
  int64_t first_row;  // of its rows in UpdateBatch::convolved and ::values
  char* delta;        // slab
  bool delta_is_zero;
  float factor;        // η lr_scale
  float keep;          // 1 − decay
  float clip_norm;     // 0: off
  double max_norm;     // of the candidate; 0: off
  const void* w_down;  // with `merged`
  void* merged;        // [d, f] in the activations' type = W_down + ΔW; null: not asked for

  // Controls that need ‖U‖ before it is applied.
  __host__ __device__ bool controlled() const { return clip_norm > 0 || max_norm > 0; }
};

// What MeasureUpdates decided.
struct UpdateDecision {
  double update_norm;
  float scale;  // on U
  bool clipped, skipped;
};

struct MeasuredSums {
  double update_squares, products, delta_squares;  // Σ U², Σ ΔW U, Σ ΔW²
};

// Device memory of fixed size, zero at first. Kernels leave `maxima` and `arrivals` zero.
struct UpdateControl {
  uint32_t maxima[kUpdateBatch][2];  // of the bits of |v| and |z| as float32
  uint32_t arrivals[kUpdateBatch];
  UpdateDecision decisions[kUpdateBatch];
  MeasuredSums measured[kUpdateBatch][kMeasureBlocks];
};

struct UpdateBatch {
  int count;
  int64_t d, f;
  DType dtype;         // of targets, z, convolved, values, updates
  void* convolved;     // c [Σ rows, d]
  const void* values;  // v [Σ rows, d]
  void* updates;       // U [count, d, f]
  double2* row_sums;   // [count, d] Σ U², Σ ΔW² of a row
  UpdateControl* control;
  UpdateTask tasks[kUpdateBatch];
};

// c of each update: the depthwise convolution of its rows, those outside the chunk being zero; and
// the largest |z| of those without controls. conv: float32 [d, 5].
void ConvolveTargets(const UpdateBatch& batch, const Matrix& conv, const LaunchContext& context);
// The largest |v|, likewise: with that of z it is mostly enough to tell that U is finite.
void FindMaxima(const UpdateBatch& batch, const LaunchContext& context);
// Norms and the decision of the updates that have controls or might not be finite.
void MeasureUpdates(const UpdateBatch& batch, const DeltaLayout& layout,
                    const LaunchContext& context);
// ΔW, the copy that products read, and `merged`.
void ApplyUpdates(const UpdateBatch& batch, const DeltaLayout& layout,
                  const LaunchContext& context);
// results: device, [count].
void FinishUpdates(const UpdateBatch& batch, const DeltaLayout& layout, ChunkUpdateResult* results,
                   const LaunchContext& context);

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_FAST_WEIGHT_KERNELS_H_
