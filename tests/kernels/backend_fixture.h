#ifndef MNEME_TESTS_KERNELS_BACKEND_FIXTURE_H_
#define MNEME_TESTS_KERNELS_BACKEND_FIXTURE_H_

#include <cstdint>
#include <memory>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/backend.h"
#include "tests/kernels/reference.h"

namespace mneme {

using reference::Tensor;

// A backend under test; every test body runs over all of them.
struct BackendCase {
  std::string name;
  DType matmul_dtype;
  int threads;
  int64_t vector_target = 0;  // a Highway target that stands for an older processor; 0: the best
};

std::vector<BackendCase> BackendCases();
inline std::ostream& operator<<(std::ostream& out, const BackendCase& c) { return out << c.name; }
std::string NameOfCase(const testing::TestParamInfo<BackendCase>& info);

// A matrix in device memory that owns it.
struct DeviceMatrix {
  DeviceBuffer buffer;
  Matrix view;
};

class BackendTest : public testing::TestWithParam<BackendCase> {
 protected:
  void SetUp() override;
  void TearDown() override;

  // Random values that `dtype` holds exactly.
  Tensor Random(int64_t rows, int64_t cols, DType dtype = DType::kF32, double size = 1);
  int64_t RandomInt(int64_t low, int64_t high);
  // The activation dtype's exact random values.
  Tensor RandomActivations(int64_t rows, int64_t cols) {
    return Random(rows, cols, backend_->activation_dtype());
  }

  DeviceMatrix Upload(const Tensor& values, DType dtype, int64_t stride = 0);
  DeviceMatrix UploadActivations(const Tensor& values, int64_t stride = 0) {
    return Upload(values, backend_->activation_dtype(), stride);
  }
  // Full of NaN, so that what an operation forgets to write shows.
  DeviceMatrix Poisoned(int64_t rows, int64_t cols, DType dtype, int64_t stride = 0);
  DeviceMatrix PoisonedActivations(int64_t rows, int64_t cols, int64_t stride = 0) {
    return Poisoned(rows, cols, backend_->activation_dtype(), stride);
  }
  std::unique_ptr<PackedMatrix> Pack(const Tensor& weight);
  // Waits for the stream and reads a float32 or bfloat16 matrix.
  Tensor Read(Matrix matrix);

  // The unit roundoff of a dtype.
  static double Roundoff(DType dtype) { return dtype == DType::kF32 ? 0x1p-24 : 0x1p-8; }
  // How far a product of `terms` terms of total magnitude `magnitude` may be off: the input rounded
  // to the matmul dtype, every addition in float32, the result rounded to the output's dtype.
  double ProductTolerance(int64_t terms, double magnitude, DType out) const;
  // What an elementwise operation or softmax of values of size 1 may be off.
  double ElementTolerance() const { return 256 * Roundoff(backend_->activation_dtype()); }

  static void ExpectNear(const Tensor& actual, const Tensor& expected, double tolerance);
  void ExpectProduct(const Tensor& actual, const Tensor& expected, const Tensor& magnitude,
                     int64_t terms, DType out) const;

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
  std::mt19937_64 random_{20260101};
};

}  // namespace mneme

#endif  // MNEME_TESTS_KERNELS_BACKEND_FIXTURE_H_
