#ifndef MNEME_KERNELS_CUDA_DELTA_H_
#define MNEME_KERNELS_CUDA_DELTA_H_

// Fast weights on the device: how a ΔW lies in its slab, how rows are multiplied by it, and how
// chunks update it.

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/step.h"

namespace mneme::cuda {

// How one ΔW [d, f] lies in its slab: the accumulated values [d, f], then how often they were
// updated (uint32: random bits of the rounding are a function of it, so that a session rounds alike
// whatever runs beside it), then, if `read` is another type, the copy that products read [d, f],
// then, for fp8, its scales float32 [d] (value = element · scale of its row). Each part begins at a
// multiple of 256 bytes. Slabs are written by updates and by copies of whole slabs
// (cudaMemcpyAsync) alone: ApplyDeltas reads them ahead of the kernel in front of it.
struct DeltaLayout {
  DeltaType accumulate = DeltaType::kBFloat16;
  DeltaType read = DeltaType::kBFloat16;
  int64_t d = 0, f = 0;

  int64_t counter_offset() const;
  int64_t read_offset() const;   // bytes; 0 if the accumulated values are read themselves
  int64_t scale_offset() const;  // bytes; meaningful for fp8
  int64_t total_bytes() const;
};

// y[r] += z[r] ΔWᵀ for the rows of the wave's DeltaGroups; one kernel for 64 groups, near the read
// bandwidth however few there are. z [n, f], y [n, d], both float32 or bf16. num_groups: the
// wave's. Deterministic. Reads the step's groups and their ΔW before the kernel in front has ended.
// `workspace`: DeltaWorkspaceBytes, zeroed once and left zeroed (arrival counters) or overwritten
// (partial sums). `keep`: rows for KeepRows to put where they belong, or null; true if that was
// done on the way, as it is for few rows.
bool ApplyDeltas(const StepView* step, int64_t wave, int64_t num_groups, int64_t layer,
                 const DeltaLayout& layout, Matrix z, Matrix y, const ChunkRows* keep,
                 void* workspace, const LaunchContext& context);
int64_t DeltaWorkspaceBytes();

// merged [d, f] = W_down + ΔW, in the dtype of `w_down` [d, f] (bf16 or float32).
void MergeDelta(const void* w_down, DType dtype, const void* delta, const DeltaLayout& layout,
                void* merged, const LaunchContext& context);

// out float32 [d, f] = the accumulated values.
void ReadDelta(const void* delta, const DeltaLayout& layout, Matrix out,
               const LaunchContext& context);

// Asks an update of `delta` for W_down + ΔW as well, as MergeDelta gives it.
struct DeltaMerge {
  const void* delta = nullptr;   // null: nothing is asked for
  const void* w_down = nullptr;  // [d, f], contiguous, in the activations' type
  void* merged = nullptr;        // likewise
};

// One stream's updates and the scratch memory they take: for up to four sessions at once their U,
// c and v. It grows to what the largest needs when that first comes; never within a capture. One
// thread.
class FastWeightUpdater {
 public:
  static absl::StatusOr<std::unique_ptr<FastWeightUpdater>> Create(
      const CudaBackendOptions& options, ProductPlans* products);
  virtual ~FastWeightUpdater() = default;

  // Applies the updates (Stream::UpdateFastWeights), batched over sessions: the convolutions as one
  // kernel, the projections as one product, U = η vᵀ z as one product each on the tensor cores, the
  // application as one pass over all. Norms are taken ahead of it only where a control asks for
  // them or U might not be finite. `projection`: [d, d] as packed
  // (W_projᵀ), or null. results: memory that kernels write, [updates.size()], in order.
  // `merge`: only where ΔW is read as it accumulates (DeltaLayout).
  virtual void Update(const FastWeightLayer& layer, const void* projection,
                      absl::Span<const ChunkUpdate> updates, const DeltaMerge& merge,
                      ChunkUpdateResult* results, const LaunchContext& context) = 0;
};

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_DELTA_H_
