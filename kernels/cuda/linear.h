#ifndef MNEME_KERNELS_CUDA_LINEAR_H_
#define MNEME_KERNELS_CUDA_LINEAR_H_

// Matrix products of many rows: cuBLASLt with cached, tuned plans.

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

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_LINEAR_H_
