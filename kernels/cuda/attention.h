#ifndef MNEME_KERNELS_CUDA_ATTENTION_H_
#define MNEME_KERNELS_CUDA_ATTENTION_H_

// Paged attention of a step's rows. FlashInfer's kernels where they fit (bf16, head sizes 64 and
// 128), our own plain kernel for everything else.

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/step.h"

namespace mneme::cuda {

// What a layer's attention looks like apart from its data; layers of one KV group share it.
struct AttentionShape {
  QkvShape heads;
  KvLayer kv;  // `data` aside
  int64_t window = 0;
  float scale = 0;

  friend bool operator==(const AttentionShape& a, const AttentionShape& b);
};

// One stream's attention: plans once a step, runs once a layer. One thread.
class PagedAttention {
 public:
  virtual ~PagedAttention() = default;

  // A step begins, or, with a `graph_key` other than 0, is about to be captured or replayed under
  // that key (after BeginStep(step, 0), which it replaces). Such a step has one row a sequence, and
  // was of the shapes that Run was given outside of captures before. All that a graph needs is
  // allocated when its key is first seen, and what varies is sent here, so call it before each
  // capture and each replay, never within a capture. Returns false if a graph captured under the
  // key earlier can no longer be replayed, since the step does not fit its buffers: capture again.
  [[nodiscard]] virtual bool BeginStep(const Step& step, uint64_t graph_key,
                                       const LaunchContext& context) = 0;
  // qkv [padded_rows, (Hq + 2 Hkv) head_dim], out [padded_rows, Hq head_dim] without gaps between
  // the rows. Outside of a capture the first layer of a shape plans it for the step.
  virtual void Run(Matrix qkv, const AttentionShape& shape, const void* kv_data, Matrix out,
                   const LaunchContext& context) = 0;
};

absl::StatusOr<std::unique_ptr<PagedAttention>> CreatePagedAttention();

// The plain kernel: any head size up to 256, float32 or bf16 throughout, any sequence lengths,
// windows. A reference for the others. Works from the step's device arrays alone.
void PlainAttention(const StepView* step, int64_t padded_rows, Matrix qkv,
                    const AttentionShape& shape, const void* kv_data, Matrix out,
                    const LaunchContext& context);

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_ATTENTION_H_
