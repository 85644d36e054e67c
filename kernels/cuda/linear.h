#ifndef MNEME_KERNELS_CUDA_LINEAR_H_
#define MNEME_KERNELS_CUDA_LINEAR_H_

// Matrix products: cuBLASLt with cached, tuned plans for many rows, a kernel of our own that runs
// near the read bandwidth for few.

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cuda/launch.h"

namespace mneme::cuda {

// One product out = alpha · op(a) op(b) + bias + beta · out, in the row-major sense.
struct Product {
  const void* a = nullptr;     // [m, k], or [k, m] if a_transposed
  const void* b = nullptr;     // [n, k] as weights are (out = a bᵀ), or [k, n] if b_plain
  void* out = nullptr;         // [m, n]
  const void* bias = nullptr;  // float32 [n], added to each row; or null
  int64_t m = 0, n = 0, k = 0;
  int64_t a_stride = 0, b_stride = 0, out_stride = 0;  // elements from a row to the next
  bool a_transposed = false, b_plain = false;
  DType dtype = DType::kBF16;      // of a and b
  DType out_dtype = DType::kBF16;  // kBF16 or kF32
  float alpha = 1, beta = 0;       // beta: 0 or 1
};

// cuBLASLt: plans are found by trying the library's candidates on the device when a shape is first
// seen outside a capture (many rows are rounded up for that), then kept. bf16 accumulates in
// float32, float32 never goes through TF32. One thread.
class ProductPlans {
 public:
  static absl::StatusOr<std::unique_ptr<ProductPlans>> Create();
  virtual ~ProductPlans() = default;
  virtual void Run(const Product& product, const LaunchContext& context) = 0;
};

// Rows up to which SkinnyLinear is the faster way.
inline constexpr int64_t kSkinnyRows = 8;

// out [rows, n] = x [rows, k] Wᵀ + bias (+ out if accumulate), rows ≤ kSkinnyRows, bf16 x and W
// (W [n, k] contiguous), out bf16 or float32, k a multiple of 8. Deterministic. Reads W before the
// kernel in front has ended: no kernel writes it. `workspace`: SkinnyWorkspaceBytes, zeroed once
// and left zeroed (arrival counters) or overwritten (partial sums).
void SkinnyLinear(Matrix x, const void* weight, const void* bias, bool accumulate, Matrix out,
                  void* workspace, const LaunchContext& context);
int64_t SkinnyWorkspaceBytes();
// Whether SkinnyLinear takes these arguments, W being aligned to 16 bytes.
bool IsSkinny(const Matrix& x, const Matrix& out);

// The same of RMSNorm(x), whose weight too is read before the kernel in front has ended; out bf16.
void SkinnyNormLinear(Matrix x, const RowNorm& norm, const void* weight, const void* bias,
                      Matrix out, void* workspace, const LaunchContext& context);
// Whether the norm can be part of the product: a row of x must fit a block's shared memory whole.
bool CanNormSkinny(const Matrix& x, const RowNorm& norm, const Matrix& out);
// z [rows, f] = silu(gate) ⊙ up, gate and up being the columns of x Wᵀ [rows, 2 f], or of
// RMSNorm(x) Wᵀ where there is a norm. z bf16; IsSkinny (CanNormSkinny) of an `out` [rows, 2 f].
void SkinnyLinearSwiGlu(Matrix x, const RowNorm& norm, const void* weight, Matrix z,
                        void* workspace, const LaunchContext& context);

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_LINEAR_H_
