// Operations on rows that know nothing of sequences: copies, norms, products, ends.

#include <cmath>
#include <limits>

#include "tests/kernels/backend_fixture.h"

namespace mneme {
namespace {

class RowsTest : public BackendTest {};
INSTANTIATE_TEST_SUITE_P(Backends, RowsTest, testing::ValuesIn(BackendCases()), NameOfCase);

TEST_P(RowsTest, CopyRowsKeepsStridesApart) {
  const Tensor values = RandomActivations(7, 33);
  const DeviceMatrix from = UploadActivations(values, 40);
  const DeviceMatrix to = PoisonedActivations(7, 50);
  stream_->CopyRows(from.view, to.view.Columns(5, 33));
  ExpectNear(Read(to.view.Columns(5, 33)), values, 0);
  for (const double x : Read(to.view.Columns(0, 5)).values) EXPECT_TRUE(std::isnan(x));
  for (const double x : Read(to.view.Columns(38, 12)).values) EXPECT_TRUE(std::isnan(x));
}

TEST_P(RowsTest, GatherRowsTakesRowsInTheGivenOrder) {
  const Tensor values = RandomActivations(9, 17);
  const DeviceMatrix from = UploadActivations(values, 20);
  const DeviceMatrix to = PoisonedActivations(4, 17);
  const std::vector<int32_t> rows = {8, 0, 3, 3};
  stream_->GatherRows(from.view, rows, to.view);
  const Tensor out = Read(to.view);
  for (int64_t i = 0; i < 4; ++i) {
    ExpectNear(out.Rows(i, 1), values.Rows(rows[static_cast<size_t>(i)], 1), 0);
  }
}

TEST_P(RowsTest, EmbedReadsATableOfAnyDType) {
  const std::vector<int32_t> tokens = {4, 0, 10, 4};
  stream_->BeginStep({.token_ids = tokens, .sequences = {}});
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Tensor values = Random(11, 37, DType::kBF16);
    const DeviceMatrix table = Upload(values, dtype);
    const DeviceMatrix out = PoisonedActivations(4, 37);
    stream_->Embed(table.view, out.view);
    const Tensor rows = Read(out.view);
    for (int64_t i = 0; i < 4; ++i) {
      ExpectNear(rows.Rows(i, 1), values.Rows(tokens[static_cast<size_t>(i)], 1), 0);
    }
  }
}

TEST_P(RowsTest, EmbedReadsHalfPrecision) {
  const std::vector<uint16_t> table = {0x0000, 0x3c00, 0xc000, 0x0001};  // 0 1 | −2 2⁻²⁴
  const std::vector<int32_t> tokens = {1};
  auto buffer = backend_->Allocate(8);
  ASSERT_TRUE(buffer.ok());
  stream_->CopyFromHost(buffer->data(), table.data(), 8);
  const DeviceMatrix out = PoisonedActivations(1, 2);
  stream_->BeginStep({.token_ids = tokens, .sequences = {}});
  stream_->Embed({buffer->data(), DType::kF16, 2, 2, 2}, out.view);
  const Tensor row = Read(out.view);
  EXPECT_EQ(row.at(0, 0), -2);
  EXPECT_EQ(row.at(0, 1), 0x1p-24);
}

TEST_P(RowsTest, RmsNormAgreesAtAnyWidthAndInPlace) {
  for (const int64_t cols : {1, 3, 16, 31, 96, 1000, 4099}) {
    for (const int64_t rows : {1, 5, 64}) {
      const Tensor x = RandomActivations(rows, cols);
      const Tensor weight = Random(1, cols);
      const Tensor expected = reference::RmsNorm(x, weight, 1e-6);
      const DeviceMatrix weights = Upload(weight, DType::kF32);
      const DeviceMatrix in = UploadActivations(x, cols + 3);
      const DeviceMatrix out = PoisonedActivations(rows, cols);
      stream_->RmsNorm(in.view, weights.view.data, 1e-6f, out.view);
      const double tolerance = 8 * ElementTolerance();
      ExpectNear(Read(out.view), expected, tolerance);
      stream_->RmsNorm(in.view, weights.view.data, 1e-6f, in.view);
      ExpectNear(Read(in.view), expected, tolerance);
    }
  }
}

TEST_P(RowsTest, SwiGluAgreesAlsoFarFromZero) {
  for (const int64_t f : {1, 7, 48, 97, 768}) {
    Tensor gate_up = RandomActivations(6, 2 * f);
    gate_up.at(0, 0) = 200;
    gate_up.at(1, 0) = -200;
    gate_up.at(2, 0) = 0;
    const DeviceMatrix in = UploadActivations(gate_up);
    const DeviceMatrix out = PoisonedActivations(6, f, f + 5);
    stream_->SwiGlu(in.view, out.view);
    const Tensor z = Read(out.view);
    const Tensor expected = reference::SwiGlu(gate_up);
    for (int64_t i = 0; i < 6; ++i) {
      for (int64_t j = 0; j < f; ++j) {
        ASSERT_NEAR(z.at(i, j), expected.at(i, j),
                    ElementTolerance() * (1 + std::abs(expected.at(i, j))));
      }
    }
  }
}

TEST_P(RowsTest, SwiGluPassesNaNOn) {
  Tensor gate_up(1, 40);
  gate_up.at(0, 3) = std::numeric_limits<double>::quiet_NaN();
  const DeviceMatrix in = UploadActivations(gate_up);
  const DeviceMatrix out = PoisonedActivations(1, 20);
  stream_->SwiGlu(in.view, out.view);
  const Tensor z = Read(out.view);
  for (int64_t j = 0; j < 20; ++j) EXPECT_EQ(std::isnan(z.at(0, j)), j == 3);
}

class LinearTest : public BackendTest {
 protected:
  // Checks x Wᵀ [+ bias] [+ out] at one shape, with row strides that exceed the columns by `gap`.
  void Check(int64_t n, int64_t in, int64_t out, bool with_bias, bool accumulate, int64_t gap) {
    SCOPED_TRACE(testing::Message()
                 << n << " rows, " << in << " to " << out << ", bias " << with_bias
                 << ", accumulate " << accumulate << ", gap " << gap);
    const Tensor x = RandomActivations(n, in);
    const Tensor weight = Random(out, in, DType::kBF16);
    const Tensor bias = Random(1, out);
    const Tensor before = RandomActivations(n, out);
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
        accumulate ? UploadActivations(before, out + gap) : PoisonedActivations(n, out, out + gap);
    stream_->Linear(inputs.view, *packed, with_bias ? biases.view.data : nullptr, accumulate,
                    result.view);
    ExpectProduct(Read(result.view), expected, magnitude, in, result.view.dtype);
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
  for (int64_t i = 0; i < 40; ++i) {  // inputs are rounded alike: only sums may differ
    for (int64_t j = 0; j < 100; ++j) {
      ASSERT_NEAR(a.at(i, j), b.at(i, j), 2 * 256 * 0x1p-24 * magnitude.at(i, j));
    }
  }
}

TEST_P(RowsTest, TargetLogProbsAgreeWithLargeLogits) {
  for (const int64_t vocabulary : {5, 1000, 20011}) {
    Tensor logits = Random(3, vocabulary, DType::kF32, 5);
    for (double& x : logits.values) x += 10000;  // softmax does not change
    const std::vector<int32_t> targets = {0, static_cast<int32_t>(vocabulary - 1), 2};
    for (double& x : logits.values) x = double{static_cast<float>(x)};
    const DeviceMatrix in = Upload(logits, DType::kF32);
    const DeviceMatrix out = Poisoned(1, 3, DType::kF32);
    stream_->TargetLogProbs(in.view, targets, out.view.data);
    const Tensor log_probs = Read(out.view);
    for (int64_t i = 0; i < 3; ++i) {
      const double expected = reference::LogProb(logits, i, targets[static_cast<size_t>(i)]);
      EXPECT_NEAR(log_probs.at(0, i), expected, 1e-5 * (1 + std::abs(expected)));
    }
  }
}

}  // namespace
}  // namespace mneme
