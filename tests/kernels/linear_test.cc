// Products with packed weights.

#include <cmath>
#include <cstring>

#include "tests/kernels/backend_fixture.h"

namespace mneme {
namespace {

class LinearTest : public BackendTest {
 protected:
  // Checks x Wᵀ [+ bias] [+ out] at one shape, with row strides that exceed the columns by `gap`.
  void Check(int64_t n, int64_t in, int64_t out, bool with_bias, bool accumulate, int64_t gap) {
    CheckInto(backend_->activation_dtype(), n, in, out, with_bias, accumulate, gap);
  }
  void CheckInto(DType dtype, int64_t n, int64_t in, int64_t out, bool with_bias, bool accumulate,
                 int64_t gap) {
    SCOPED_TRACE(testing::Message()
                 << n << " rows, " << in << " to " << out << ", bias " << with_bias
                 << ", accumulate " << accumulate << ", gap " << gap);
    const Tensor x = RandomActivations(n, in);
    const Tensor weight = Random(out, in, DType::kBF16);
    const Tensor bias = Random(1, out);
    const Tensor before = Random(n, out, dtype);
    Tensor expected = reference::Linear(x, weight);
    Tensor magnitude = reference::LinearMagnitude(x, weight);
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < out; ++j) {
        const double added = (with_bias ? bias.at(0, j) : 0) + (accumulate ? before.at(i, j) : 0);
        expected.at(i, j) += added;
        magnitude.at(i, j) += std::abs(added);
      }
    }
    const auto packed = Pack(weight);
    EXPECT_EQ(packed->in_features(), in);
    EXPECT_EQ(packed->out_features(), out);
    const DeviceMatrix inputs = UploadActivations(x, in + gap);
    const DeviceMatrix biases = Upload(bias, DType::kF32);
    const DeviceMatrix result =
        accumulate ? Upload(before, dtype, out + gap) : Poisoned(n, out, dtype, out + gap);
    stream_->Linear(inputs.view, *packed, with_bias ? biases.view.data : nullptr, accumulate,
                    result.view);
    ExpectProduct(Read(result.view), expected, magnitude, in, result.view.dtype,
                  /*roundings=*/with_bias ? 2 : 1);
  }
};
INSTANTIATE_TEST_SUITE_P(Backends, LinearTest, testing::ValuesIn(BackendCases()), NameOfCase);

TEST_P(LinearTest, AgreesAtOddShapes) {
  for (const int64_t n : {1, 2, 3, 17, 65}) {
    Check(n, 96, 130, false, false, 0);
    Check(n, 33, 7, false, false, 0);
    Check(n, 1, 1, false, false, 0);
  }
  for (const int64_t n : {127, 128, 129, 200, 256, 300}) Check(n, 20, 12, true, true, 0);
}

TEST_P(LinearTest, AgreesFromOneRowToHundreds) {
  for (const int64_t n : {1, 3, 8, 9, 64, 300}) {
    Check(n, 264, 136, false, false, 0);
    Check(n, 131, 77, false, true, 0);
  }
  for (const int64_t n : {1, 3, 8, 9, 64}) Check(n, 2560, 48, n % 2 == 0, n % 2 == 1, 0);
}

TEST_P(LinearTest, GivesFloat32WhateverTheActivations) {
  for (const int64_t n : {1, 8, 9, 70}) {
    CheckInto(DType::kF32, n, 256, 1000, false, false, 0);
    CheckInto(DType::kF32, n, 33, 17, true, true, 3);
  }
}

TEST_P(LinearTest, AddsBiasAndAccumulatesAtAnyStride) {
  for (const int64_t n : {1, 4, 20}) {
    for (const int64_t gap : {0, 9}) {
      Check(n, 64, 48, true, false, gap);
      Check(n, 64, 48, false, true, gap);
      Check(n, 64, 48, true, true, gap);
    }
  }
}

TEST_P(LinearTest, PackConcatenatesPartsOfAnyDTypeAndAlignment) {
  const Tensor top = Random(5, 24, DType::kBF16), bottom = Random(9, 24, DType::kBF16);
  std::vector<char> bytes(1 + 5 * 24 * 2);
  for (size_t i = 0; i < top.values.size(); ++i) {
    const uint16_t bits = FloatToBFloat16(static_cast<float>(top.values[i]));
    std::memcpy(bytes.data() + 1 + 2 * i, &bits, 2);
  }
  const std::vector<float> floats(bottom.values.begin(), bottom.values.end());
  const std::vector<HostTensor> parts = {{bytes.data() + 1, DType::kBF16, 5, 24},
                                         {floats.data(), DType::kF32, 9, 24}};
  auto packed = backend_->Pack(parts);
  ASSERT_TRUE(packed.ok()) << packed.status();
  const Tensor x = RandomActivations(3, 24);
  const DeviceMatrix in = UploadActivations(x);
  const DeviceMatrix out = PoisonedActivations(3, 14);
  stream_->Linear(in.view, **packed, nullptr, false, out.view);
  const Tensor result = Read(out.view);
  for (int64_t i = 0; i < 3; ++i) {
    for (int64_t j = 0; j < 14; ++j) {
      const Tensor& part = j < 5 ? top : bottom;
      const Tensor row = part.Rows(j < 5 ? j : j - 5, 1);
      const double magnitude = reference::LinearMagnitude(x.Rows(i, 1), row).at(0, 0);
      EXPECT_NEAR(result.at(i, j), reference::Linear(x.Rows(i, 1), row).at(0, 0),
                  ProductTolerance(24, magnitude, out.view.dtype));
    }
  }
}

TEST_P(LinearTest, ARowAloneEqualsItselfInABatch) {
  const Tensor weight = Random(100, 256, DType::kBF16);
  const auto packed = Pack(weight);
  const Tensor x = RandomActivations(40, 256);
  const Tensor magnitude = reference::LinearMagnitude(x, weight);
  const DeviceMatrix in = UploadActivations(x);
  const DeviceMatrix batch = PoisonedActivations(40, 100), alone = PoisonedActivations(40, 100);
  stream_->Linear(in.view, *packed, nullptr, false, batch.view);
  for (int64_t i = 0; i < 40; ++i) {
    stream_->Linear(in.view.Rows(i, 1), *packed, nullptr, false, alone.view.Rows(i, 1));
  }
  const Tensor a = Read(alone.view), b = Read(batch.view);
  for (int64_t i = 0; i < 40; ++i) {  // inputs are rounded alike: only sums and results may differ
    for (int64_t j = 0; j < 100; ++j) {
      ASSERT_NEAR(
          a.at(i, j), b.at(i, j),
          2 * 256 * 0x1p-24 * magnitude.at(i, j) + 2 * ActivationRoundoff() * std::abs(b.at(i, j)));
    }
  }
}

}  // namespace
}  // namespace mneme
