// Operations on rows that know nothing of sequences: copies, norms, products, ends.

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

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
  const SequenceRows sequence{0, 4, 0, {}};
  stream_->BeginStep({.token_ids = tokens, .sequences = {&sequence, 1}, .padded_rows = 4});
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

TEST_P(RowsTest, EmbedComputesPaddingOnTokenZero) {
  const std::vector<int32_t> tokens = {2, 1};
  const SequenceRows sequence{0, 2, 0, {}};
  const Tensor values = Random(3, 24, DType::kBF16);
  const DeviceMatrix table = UploadActivations(values);
  const DeviceMatrix out = PoisonedActivations(5, 24);
  stream_->BeginStep({.token_ids = tokens, .sequences = {&sequence, 1}, .padded_rows = 5});
  stream_->Embed(table.view, out.view);
  const Tensor rows = Read(out.view);
  for (int64_t i = 0; i < 5; ++i) {
    ExpectNear(rows.Rows(i, 1), values.Rows(std::max<int64_t>(0, 2 - i), 1), 0);
  }
}

TEST_P(RowsTest, EmbedReadsHalfPrecision) {
  const std::vector<uint16_t> table = {0x0000, 0x3c00, 0xc000, 0x0001};  // 0 1 | −2 2⁻²⁴
  const std::vector<int32_t> tokens = {1};
  const SequenceRows sequence{0, 1, 0, {}};
  auto buffer = backend_->Allocate(8);
  ASSERT_TRUE(buffer.ok());
  stream_->CopyFromHost(buffer->data(), table.data(), 8);
  const DeviceMatrix out = PoisonedActivations(1, 2);
  stream_->BeginStep({.token_ids = tokens, .sequences = {&sequence, 1}, .padded_rows = 1});
  stream_->Embed({buffer->data(), DType::kF16, 2, 2, 2}, out.view);
  const Tensor row = Read(out.view);
  EXPECT_EQ(row.at(0, 0), -2);
  EXPECT_EQ(row.at(0, 1), 0x1p-24);
}

TEST_P(RowsTest, RmsNormAgreesAtAnyWidthAndInPlace) {
  for (const int64_t cols : {1, 3, 16, 31, 96, 1000, 4099}) {
    for (const int64_t rows : {1, 5, 20}) {
      const Tensor x = RandomActivations(rows, cols);
      const Tensor weight = Random(1, cols);
      const Tensor expected = reference::RmsNorm(x, weight, 1e-6);
      const DeviceMatrix weights = Upload(weight, DType::kF32);
      const DeviceMatrix in = UploadActivations(x, cols + 3);
      const DeviceMatrix out = PoisonedActivations(rows, cols);
      stream_->RmsNorm(in.view, weights.view.data, 1e-6f, out.view);
      const double tolerance = 8 * kElementTolerance;
      ExpectActivations(Read(out.view), expected, tolerance);
      stream_->RmsNorm(in.view, weights.view.data, 1e-6f, in.view);
      ExpectActivations(Read(in.view), expected, tolerance);
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
    ExpectActivations(Read(out.view), reference::SwiGlu(gate_up), kElementTolerance);
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

TEST_P(RowsTest, KeepRowsPutsTheRowsOfAWaveIntoTheirChunks) {
  // Rows 0–2 of a sequence end its chunk and are not kept, rows 3–4 open the next one; row 5 and
  // rows 6–8 continue chunks of two other sequences. Row 9 is padding.
  constexpr int64_t kChunk = 8, kBefore = 48;
  const std::vector<int32_t> tokens(9);
  const std::vector<SequenceRows> sequences = {{0, 5, 5, {}}, {5, 1, 0, {}}, {6, 3, 4, {}}};
  const std::pair<int64_t, int64_t> widths[] = {{7, 64}, {64, 7}, {64, 24}, {520, 1304}, {1, 1}};
  for (const auto& [target_cols, z_cols] : widths) {
    SCOPED_TRACE(testing::Message() << target_cols << " and " << z_cols << " columns");
    const Tensor target = RandomActivations(10, target_cols), z = RandomActivations(10, z_cols);
    const DeviceMatrix targets = UploadActivations(target, target_cols + 8);
    const DeviceMatrix zs = UploadActivations(z, z_cols + 8);
    const DType dtype = zs.view.dtype;
    const int64_t z_offset = kBefore + kChunk * target_cols * SizeOf(dtype);
    const ChunkRows rows = {targets.view, kBefore, zs.view, z_offset};
    std::vector<DeviceBuffer> blocks;
    for (int i = 0; i < 3; ++i) {
      blocks.push_back(PoisonedBytes(z_offset + kChunk * z_cols * SizeOf(dtype) + kBefore));
    }
    const std::vector<ChunkSegment> first = {
        {0, 3, {}, nullptr, 5}, {5, 1, {}, blocks[1].data(), 7}, {6, 3, {}, blocks[2].data(), 4}};
    const std::vector<ChunkSegment> second = {{3, 2, {}, blocks[0].data(), 0}};
    const std::vector<absl::Span<const ChunkSegment>> waves = {first, second};
    stream_->BeginStep(
        {.token_ids = tokens, .sequences = sequences, .padded_rows = 10, .waves = waves});
    const auto expect_kept = [&](size_t block, int64_t offset, int64_t count, int64_t row) {
      char* const data = static_cast<char*>(blocks[block].data());
      const auto expect = [&](int64_t offset_bytes, const Tensor& values) {
        const int64_t cols = values.cols;
        const Tensor chunk = Read({data + offset_bytes, dtype, kChunk, cols, cols});
        ExpectNear(chunk.Rows(offset, count), values.Rows(row, count), 0);
        for (int64_t i = 0; i < kChunk; ++i) {
          EXPECT_EQ(std::isnan(chunk.at(i, 0)), i < offset || i >= offset + count) << "row " << i;
        }
      };
      expect(kBefore, target);
      expect(z_offset, z);
    };
    stream_->KeepRows(0, rows);
    expect_kept(0, 0, 0, 0);
    expect_kept(1, 7, 1, 5);
    expect_kept(2, 4, 3, 6);
    stream_->KeepRows(1, rows);
    expect_kept(0, 0, 2, 3);
    expect_kept(1, 7, 1, 5);
    expect_kept(2, 4, 3, 6);
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

TEST_P(RowsTest, RopeIsExactAtLargePositions) {
  std::vector<double> frequencies;
  for (int i = 0; i < 64; ++i) frequencies.push_back(std::pow(1e4, -i / 64.0));
  const RopeSpec rope = {.inverse_frequencies = frequencies, .attention_factor = 1.25};
  for (const int64_t position : {int64_t{0}, int64_t{1}, int64_t{123'457}, int64_t{100'000'007}}) {
    const std::vector<int32_t> tokens = {0};
    const SequenceRows sequence{0, 1, position, {}};
    const DeviceMatrix out = Poisoned(1, 128, DType::kF32);
    stream_->BeginStep({.token_ids = tokens, .sequences = {&sequence, 1}, .padded_rows = 1});
    stream_->ComputeRope(rope, out.view);
    const Tensor angles = Read(out.view);
    for (int64_t i = 0; i < 64; ++i) {
      const long double angle = static_cast<long double>(position) *
                                static_cast<long double>(frequencies[static_cast<size_t>(i)]);
      EXPECT_NEAR(angles.at(0, i), static_cast<double>(std::cos(angle)) * 1.25, 2e-7);
      EXPECT_NEAR(angles.at(0, 64 + i), static_cast<double>(std::sin(angle)) * 1.25, 2e-7);
    }
  }
}

}  // namespace
}  // namespace mneme
