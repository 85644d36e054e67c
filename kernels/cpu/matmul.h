#ifndef MNEME_KERNELS_CPU_MATMUL_H_
#define MNEME_KERNELS_CPU_MATMUL_H_

// Matrix products by oneDNN. Every function here may throw dnnl::error or std::bad_alloc.

#include <array>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>
#include <utility>

#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/cpu/scratch.h"

namespace mneme {

// A weight matrix in oneDNN's blocked layout.
class CpuPackedMatrix : public PackedMatrix {
 public:
  // Concatenates and converts `parts`, of equal and positive sizes, to `dtype`. Uses the calling
  // thread's OpenMP threads.
  CpuPackedMatrix(const dnnl::engine& engine, DType dtype, absl::Span<const HostTensor> parts);

  int64_t out_features() const override { return out_features_; }
  int64_t in_features() const override { return in_features_; }
  int64_t size_bytes() const override;

  DType dtype() const { return dtype_; }
  const dnnl::memory& memory() const { return memory_; }

 private:
  DType dtype_;
  int64_t out_features_ = 0;
  int64_t in_features_ = 0;
  dnnl::memory memory_;
};

// Multiplies with packed weights. Keeps the primitives of the shapes last used: to make one costs
// a millisecond, and the number of rows changes from step to step. One thread at a time.
class Matmul {
 public:
  // Enough for every row count of a model's few weight shapes, at a few KB each.
  static constexpr size_t kMaxPrimitives = 1024;

  Matmul(const dnnl::engine& engine, int threads, size_t max_primitives = kMaxPrimitives);

  // out = x Wᵀ + bias, added to `out` if `accumulate`. x [n, in] and out [n, out] float32 of any
  // row stride; bias float32 [out] or null.
  void Linear(Matrix x, const CpuPackedMatrix& weight, const void* bias, bool accumulate,
              Matrix out);

 private:
  // rows, out, in, dtype, has bias, accumulates
  using Shape = std::array<int64_t, 6>;
  struct Primitive {
    dnnl::matmul matmul;
    dnnl::memory x, bias, out;
    std::unordered_map<int, dnnl::memory> arguments;
  };
  using Entry = std::pair<Shape, Primitive>;

  void LinearDense(Matrix x, const CpuPackedMatrix& weight, const void* bias, bool accumulate,
                   Matrix out);
  const void* PackInput(Matrix x, DType dtype);
  Primitive& Find(const Shape& shape, const CpuPackedMatrix& weight);
  Primitive Make(const Shape& shape, const CpuPackedMatrix& weight) const;

  dnnl::engine engine_;
  dnnl::stream stream_;
  int threads_;
  size_t max_primitives_;
  std::list<Entry> recent_;  // the last used in front
  std::map<Shape, std::list<Entry>::iterator> by_shape_;
  Scratch input_, output_;
};

// c = aᵀ b of plain float32 views: a [k, m], b [k, n], c [m, n].
void MultiplyTransposed(Matrix a, Matrix b, Matrix c);
// c += a bᵀ of plain float32 views: a [m, k], b [n, k], c [m, n].
void MultiplyAdd(Matrix a, Matrix b, Matrix c);

}  // namespace mneme

#endif  // MNEME_KERNELS_CPU_MATMUL_H_
