// Products with a norm in front or a gate behind, which backends may fuse.

#include <algorithm>
#include <cmath>
#include <vector>

#include "tests/kernels/backend_fixture.h"

namespace mneme {
namespace {

constexpr double kEpsilon = 1e-6;

// A product's expected values, and how far each may be off.
struct Expected {
  Tensor values, tolerance;
};

class FusedTest : public BackendTest {
 protected:
  struct Shape {
    int64_t rows, in, out;  // out: of the result
    int64_t gap = 0;        // by how much the strides of x and the result exceed their columns
  };
  struct Norm {
    Tensor values;
    DeviceMatrix device;
    RowNorm row_norm(bool wanted = false) const {
      return {device.view.data, static_cast<float>(kEpsilon), wanted};
    }
  };

  Norm RandomNorm(int64_t cols) {
    Tensor values = Random(1, cols);
    return {values, Upload(values, DType::kF32)};
  }
  // Rows of very different sizes, so that one row's norm is no other's.
  Tensor RandomRows(int64_t rows, int64_t cols);
  // y Wᵀ. Each y, if it is a norm's, and each input is rounded independently; sums are in float32.
  Expected Product(const Tensor& y, const Tensor& weight, bool normed) const;
  Expected SwiGlu(const Expected& gate_up) const;
  // Whether `h` has what was wanted: RmsNorm(x).
  void ExpectNormed(const DeviceMatrix& h, const Tensor& y);
  static void ExpectWithin(const Tensor& actual, const Expected& expected);

  void CheckNormLinear(const Shape& shape, bool with_bias);
  void CheckLinearSwiGlu(const Shape& shape, bool normed);
};
INSTANTIATE_TEST_SUITE_P(Backends, FusedTest, testing::ValuesIn(BackendCases()), NameOfCase);

Tensor FusedTest::RandomRows(int64_t rows, int64_t cols) {
  Tensor x = RandomActivations(rows, cols);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) x.at(i, j) *= std::ldexp(1, static_cast<int>(i % 7) - 3);
  }
  return x;
}

Expected FusedTest::Product(const Tensor& y, const Tensor& weight, bool normed) const {
  const double input = InputRoundoff() + (normed ? ActivationRoundoff() : 0);
  const double sums = static_cast<double>(y.cols + 4) * Roundoff(DType::kF32);
  Expected product{reference::Linear(y, weight), reference::LinearMagnitude(y, weight)};
  const Tensor spread = reference::LinearSpread(y, weight);
  for (size_t i = 0; i < product.values.values.size(); ++i) {
    const double size = std::abs(product.values.values[i]);
    double& tolerance = product.tolerance.values[i];
    tolerance = sums * tolerance + 3 * input * spread.values[i] +
                (ActivationRoundoff() + kElementTolerance) * size;
  }
  return product;
}

Expected FusedTest::SwiGlu(const Expected& gate_up) const {
  Expected z{reference::SwiGlu(gate_up.values),
             Tensor(gate_up.values.rows, gate_up.values.cols / 2)};
  constexpr double kSteepest = 1.1;  // of silu
  for (int64_t i = 0; i < z.values.rows; ++i) {
    for (int64_t j = 0; j < z.values.cols; ++j) {
      const double gate = gate_up.values.at(i, j), up = gate_up.values.at(i, z.values.cols + j);
      const double gate_error = kSteepest * gate_up.tolerance.at(i, j);
      const double up_error = gate_up.tolerance.at(i, z.values.cols + j);
      const double silu = gate / (1 + std::exp(-gate));
      z.tolerance.at(i, j) = gate_error * (std::abs(up) + up_error) + std::abs(silu) * up_error +
                             (ActivationRoundoff() + kElementTolerance) * std::abs(silu * up) +
                             kElementTolerance;
    }
  }
  return z;
}

void FusedTest::ExpectWithin(const Tensor& actual, const Expected& expected) {
  for (int64_t i = 0; i < actual.rows; ++i) {
    for (int64_t j = 0; j < actual.cols; ++j) {
      ASSERT_NEAR(actual.at(i, j), expected.values.at(i, j), expected.tolerance.at(i, j))
          << "at [" << i << ", " << j << "]";
    }
  }
}

void FusedTest::ExpectNormed(const DeviceMatrix& h, const Tensor& y) {
  ExpectActivations(Read(h.view), y, 8 * kElementTolerance);
}

void FusedTest::CheckNormLinear(const Shape& s, bool with_bias) {
  SCOPED_TRACE(testing::Message() << s.rows << " rows, " << s.in << " to " << s.out << ", bias "
                                  << with_bias << ", gap " << s.gap);
  const Tensor x = RandomRows(s.rows, s.in);
  const Norm norm = RandomNorm(s.in);
  const Tensor weight = Random(s.out, s.in, DType::kBF16), bias = Random(1, s.out);
  const Tensor y = reference::RmsNorm(x, norm.values, kEpsilon);
  Expected expected = Product(y, weight, /*normed=*/true);
  for (int64_t i = 0; with_bias && i < s.rows; ++i) {
    for (int64_t j = 0; j < s.out; ++j) {
      expected.values.at(i, j) += bias.at(0, j);
      expected.tolerance.at(i, j) +=
          (ActivationRoundoff() + kElementTolerance) * std::abs(bias.at(0, j));
    }
  }
  const auto packed = Pack(weight);
  const DeviceMatrix in = UploadActivations(x, s.in + s.gap), biases = Upload(bias, DType::kF32);
  const void* const bias_data = with_bias ? biases.view.data : nullptr;
  const DeviceMatrix h = PoisonedActivations(s.rows, s.in, s.in + s.gap);
  const DeviceMatrix out = PoisonedActivations(s.rows, s.out, s.out + s.gap);
  stream_->NormLinear(in.view, norm.row_norm(), *packed, bias_data, h.view, out.view);
  ExpectWithin(Read(out.view), expected);
  // As of logits and the last hidden state.
  const DeviceMatrix wide = Poisoned(s.rows, s.out, DType::kF32, s.out + s.gap);
  stream_->NormLinear(in.view, norm.row_norm(/*wanted=*/true), *packed, bias_data, h.view,
                      wide.view);
  ExpectWithin(Read(wide.view), expected);
  ExpectNormed(h, y);
  ExpectNear(Read(in.view), x, 0);
}

void FusedTest::CheckLinearSwiGlu(const Shape& s, bool normed) {
  SCOPED_TRACE(testing::Message() << s.rows << " rows, " << s.in << " to " << s.out << ", norm "
                                  << normed << ", gap " << s.gap);
  const Tensor x = normed ? RandomRows(s.rows, s.in) : RandomActivations(s.rows, s.in);
  const Norm norm = RandomNorm(s.in);
  const Tensor weight =
      Random(2 * s.out, s.in, DType::kBF16, 2 / std::sqrt(static_cast<double>(s.in)));
  const Tensor y = normed ? reference::RmsNorm(x, norm.values, kEpsilon) : x;
  const Expected expected = SwiGlu(Product(y, weight, normed));
  const auto packed = Pack(weight);
  const DeviceMatrix in = UploadActivations(x, s.in + s.gap);
  const DeviceMatrix h = PoisonedActivations(s.rows, s.in, s.in + s.gap);
  const DeviceMatrix gate_up = PoisonedActivations(s.rows, 2 * s.out);
  for (const bool wanted : {false, true}) {
    if (wanted && !normed) continue;
    const DeviceMatrix z = PoisonedActivations(s.rows, s.out, s.out + s.gap);
    stream_->LinearSwiGlu(in.view, normed ? norm.row_norm(wanted) : RowNorm{}, *packed, h.view,
                          gate_up.view, z.view);
    ExpectWithin(Read(z.view), expected);
    if (wanted) ExpectNormed(h, y);
  }
  ExpectNear(Read(in.view), x, 0);
}

TEST_P(FusedTest, NormLinearAgreesFromOneRowToManyAtAnyWidth) {
  for (const int64_t rows : {1, 3, 8, 9, 64}) {
    for (const int64_t in : {1, 8, 33, 96, 136, 264}) CheckNormLinear({rows, in, 77}, in == 96);
    CheckNormLinear({rows, 24, 1300}, true);
    CheckNormLinear({rows, 2560, 48}, false);
  }
}

// Some of these rows do not fit a multiprocessor's memory together, or whole.
TEST_P(FusedTest, NormLinearAgreesOnWideRows) {
  for (const int64_t rows : {1, 3, 5, 8}) {
    for (const int64_t in : {2568, 4096, 4104, 9728}) CheckNormLinear({rows, in, 20}, false);
  }
}

TEST_P(FusedTest, NormLinearAgreesAtAnyStride) {
  for (const int64_t gap : {3, 8}) {
    for (const int64_t rows : {1, 4, 20}) CheckNormLinear({rows, 96, 50, gap}, true);
  }
}

TEST_P(FusedTest, LinearSwiGluAgreesFromOneRowToManyAtAnyWidth) {
  for (const bool normed : {false, true}) {
    for (const int64_t rows : {1, 3, 8, 9, 64}) {
      for (const int64_t out : {1, 4, 7, 24, 77, 130}) {
        CheckLinearSwiGlu({rows, 96, out}, normed);
        CheckLinearSwiGlu({rows, 33, out}, normed);
      }
      CheckLinearSwiGlu({rows, 24, 1301}, normed);
      CheckLinearSwiGlu({rows, 2560, 20}, normed);
    }
  }
}

TEST_P(FusedTest, LinearSwiGluAgreesWithManyTilesABlock) {
  for (const bool normed : {false, true}) {
    for (const int64_t rows : {1, 8}) {
      for (const int64_t out : {1999, 5000}) CheckLinearSwiGlu({rows, 24, out}, normed);
    }
  }
}

TEST_P(FusedTest, LinearSwiGluAgreesOnWideRowsAndAtAnyStride) {
  for (const bool normed : {false, true}) {
    for (const int64_t rows : {1, 5, 8}) {
      for (const int64_t in : {2568, 4096, 9728}) CheckLinearSwiGlu({rows, in, 9}, normed);
      for (const int64_t gap : {3, 8}) CheckLinearSwiGlu({rows, 96, 50, gap}, normed);
    }
  }
}

TEST_P(FusedTest, ARowOfZerosIsNormalisedToZeros) {
  const Norm norm = RandomNorm(64);
  const auto packed = Pack(Random(48, 64, DType::kBF16));
  Tensor x = RandomActivations(2, 64);
  for (int64_t j = 0; j < 64; ++j) x.at(1, j) = 0;
  const DeviceMatrix in = UploadActivations(x), h = PoisonedActivations(2, 64);
  const DeviceMatrix gate_up = PoisonedActivations(2, 48);
  const DeviceMatrix out = PoisonedActivations(2, 48), z = PoisonedActivations(2, 24);
  stream_->NormLinear(in.view, norm.row_norm(), *packed, nullptr, h.view, out.view);
  stream_->LinearSwiGlu(in.view, norm.row_norm(), *packed, h.view, gate_up.view, z.view);
  for (const double value : Read(out.view).Rows(1, 1).values) EXPECT_EQ(value, 0);
  for (const double value : Read(z.view).Rows(1, 1).values) EXPECT_EQ(value, 0);
}

// What a NaN in one row and one gate touches, and what not.
TEST_P(FusedTest, NaNStaysWithinItsRowAndItsColumn) {
  for (const bool normed : {false, true}) {
    for (const int64_t rows : {2, 12}) {
      Tensor x = RandomActivations(rows, 64), weight = Random(80, 64, DType::kBF16);
      x.at(1, 5) = std::nan("");
      weight.at(40 + 17, 3) = std::nan("");  // an up
      const Norm norm = RandomNorm(64);
      const auto packed = Pack(weight);
      const DeviceMatrix in = UploadActivations(x), h = PoisonedActivations(rows, 64);
      const DeviceMatrix gate_up = PoisonedActivations(rows, 80), z = PoisonedActivations(rows, 40);
      stream_->LinearSwiGlu(in.view, normed ? norm.row_norm() : RowNorm{}, *packed, h.view,
                            gate_up.view, z.view);
      const Tensor result = Read(z.view);
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < 40; ++j) {
          EXPECT_EQ(std::isnan(result.at(i, j)), i == 1 || j == 17) << "at " << i << ", " << j;
        }
      }
    }
  }
}

TEST_P(FusedTest, RepeatedStepsSeeTheirOwnRows) {
  constexpr int64_t kIn = 96, kOut = 40;
  for (const int64_t sequences : {1, 8}) {
    const int64_t rows = std::max(sequences, backend_->RepeatableRows(sequences));
    const std::vector<int32_t> tokens(static_cast<size_t>(sequences));
    std::vector<SequenceRows> places;
    for (int64_t i = 0; i < sequences; ++i) places.push_back({i, 1, 0, {}});
    const Norm norm = RandomNorm(kIn);
    const Tensor weight = Random(2 * kOut, kIn, DType::kBF16, 0.2);
    const auto packed = Pack(weight);
    const DeviceMatrix in = PoisonedActivations(rows, kIn), h = PoisonedActivations(rows, kIn);
    const DeviceMatrix gate_up = PoisonedActivations(rows, 2 * kOut);
    const DeviceMatrix z = PoisonedActivations(rows, kOut);
    for (int step = 0; step < 4; ++step) {
      SCOPED_TRACE(testing::Message() << sequences << " sequences, step " << step);
      const Tensor x = RandomRows(rows, kIn);
      const DeviceMatrix uploaded = UploadActivations(x);
      stream_->CopyRows(uploaded.view, in.view);
      stream_->BeginStep({.token_ids = tokens, .sequences = places, .padded_rows = rows});
      stream_->Repeat(static_cast<uint64_t>(1000 + sequences), [&] {
        stream_->NormLinear(in.view, norm.row_norm(), *packed, nullptr, h.view, gate_up.view);
        stream_->CopyRows(gate_up.view.Columns(0, kOut), z.view);  // a write that must not last
        stream_->LinearSwiGlu(in.view, norm.row_norm(/*wanted=*/true), *packed, h.view,
                              gate_up.view, z.view);
      });
      const Tensor y = reference::RmsNorm(x, norm.values, kEpsilon);
      ExpectNormed(h, y);
      ExpectWithin(Read(z.view), SwiGlu(Product(y, weight, /*normed=*/true)));
    }
  }
}

}  // namespace
}  // namespace mneme
