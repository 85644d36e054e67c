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
#include "kernels/cuda/cuda_backend.h"
#include "tests/kernels/reference.h"

namespace mneme {

using reference::Tensor;

enum class BackendKind { kCpu, kCuda };

// A backend under test; every test body runs over all of them. Those that this machine cannot run
// are skipped.
struct BackendCase {
  std::string name;
  BackendKind kind = BackendKind::kCpu;
  DType dtype = DType::kF32;  // of packed weights and of what is multiplied with them
  int threads = 0;            // CPU
  int64_t vector_target = 0;  // CPU: a Highway target that stands for an older processor; 0: best
  DeltaType delta_accumulate = DeltaType::kFloat32;
  DeltaType delta_read = DeltaType::kFloat32;
};

std::vector<BackendCase> BackendCases();
inline std::ostream& operator<<(std::ostream& out, const BackendCase& c) { return out << c.name; }
std::string NameOfCase(const testing::TestParamInfo<BackendCase>& info);

// A matrix in device memory that owns it.
struct DeviceMatrix {
  DeviceBuffer buffer;
  Matrix view;
};

// A ΔW of a test, in the backend's form, and the values that it accumulated.
struct TestDelta {
  DeviceBuffer buffer;
  Tensor values;
};

class BackendTest : public testing::TestWithParam<BackendCase> {
 protected:
  // Backends and their streams are made once a case, as a device takes long to start.
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
  // Memory full of ones, which are NaN in every dtype, so that what an operation forgets to write
  // shows.
  DeviceBuffer PoisonedBytes(int64_t bytes);
  DeviceMatrix Poisoned(int64_t rows, int64_t cols, DType dtype, int64_t stride = 0);
  DeviceMatrix PoisonedActivations(int64_t rows, int64_t cols, int64_t stride = 0) {
    return Poisoned(rows, cols, backend_->activation_dtype(), stride);
  }
  std::unique_ptr<PackedMatrix> Pack(const Tensor& weight);
  // Waits for the stream and reads a float32 or bfloat16 matrix.
  Tensor Read(Matrix matrix);

  // A ΔW [d, f] of random values of size 1, made by an update.
  TestDelta MakeDelta(int64_t d, int64_t f);
  Tensor ReadDelta(const DeviceBuffer& delta, int64_t d, int64_t f);

  // The unit roundoff of a dtype; bfloat16 has 8 bits of precision.
  static double Roundoff(DType dtype) { return dtype == DType::kF32 ? 0x1p-24 : 0x1p-8; }
  double ActivationRoundoff() const { return Roundoff(backend_->activation_dtype()); }
  // What the input of a product is rounded by; nothing if activations are of its dtype.
  double InputRoundoff() const;
  // What storing a ΔW may change an element by, relatively: bfloat16 with stochastic rounding takes
  // either neighbour, whose distance is twice the unit roundoff.
  double DeltaRoundoff() const;
  // By how much what DownProject reads may differ from what accumulates, relatively: fp8 e4m3 has 4
  // bits of precision.
  double DeltaReadRoundoff() const;
  // How far a product of `terms` terms of total magnitude `magnitude` may be off: the input rounded
  // to the matmul dtype, every addition in float32, the result rounded to the output's dtype
  // `roundings` times.
  double ProductTolerance(int64_t terms, double magnitude, DType out, int roundings = 1) const;
  // What float32 arithmetic of some depth may do to an elementwise result of size 1.
  static constexpr double kElementTolerance = 0x1p-16;

  static void ExpectNear(const Tensor& actual, const Tensor& expected, double tolerance);
  // Elementwise results: float32 arithmetic, off by `tolerance` · (1 + size) at most, rounded to
  // the activation dtype.
  void ExpectActivations(const Tensor& actual, const Tensor& expected, double tolerance) const;
  void ExpectProduct(const Tensor& actual, const Tensor& expected, const Tensor& magnitude,
                     int64_t terms, DType out, int roundings = 1) const;

  Backend* backend_ = nullptr;
  Stream* stream_ = nullptr;
  std::mt19937_64 random_{20260101};
};

}  // namespace mneme

#endif  // MNEME_TESTS_KERNELS_BACKEND_FIXTURE_H_
