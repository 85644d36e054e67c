#ifndef MNEME_KERNELS_CUDA_ATTENTION_H_
#define MNEME_KERNELS_CUDA_ATTENTION_H_

// Paged attention of a step's rows. Our own kernel for decode and FlashInfer's for more rows, where
// they fit (bf16, head sizes 64 and 128); a plain kernel for everything else.

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

// One stream's attention. One thread.
class PagedAttention {
 public:
  virtual ~PagedAttention() = default;

  // A step begins. A repeatable one has one row a sequence, and what Run launches for it finds
  // all that differs between steps in the step's device arrays, so that it can be captured in a
  // graph. The layers of other steps share a plan for each shape.
  virtual void BeginStep(const Step& step, const LaunchContext& context) = 0;
  // qkv [padded_rows, (Hq + 2 Hkv) head_dim], out [padded_rows, Hq head_dim] without gaps between
  // the rows.
  virtual void Run(Matrix qkv, const AttentionShape& shape, void* kv_data, Matrix out,
                   const LaunchContext& context) = 0;
  // RotateAndStore and Run at once; `rope` float32 [padded_rows, head_dim]. False, and nothing was
  // done, where one kernel cannot do both.
  virtual bool RotateAndRun(Matrix qkv, const QkNorm& norm, Matrix rope,
                            const AttentionShape& shape, void* kv_data, Matrix out,
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
