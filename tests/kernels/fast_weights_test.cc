// Updating fast weights.

#include <cmath>
#include <limits>
#include <vector>

#include "tests/kernels/backend_fixture.h"

namespace mneme {
namespace {

using reference::Controls;

class FastWeightsTest : public BackendTest {
 protected:
  static constexpr double kRate = 0.25;

  // Updates `delta` (null: ΔW = 0 in memory full of NaN) and checks ΔW, norms and flags.
  void Check(int64_t chunk, int64_t d, int64_t f, bool project, const Controls& controls,
             TestDelta* delta, double poison = 0);
  // The same of a random ΔW.
  void CheckRandom(int64_t chunk, int64_t d, int64_t f, bool project, const Controls& controls,
                   double poison = 0) {
    TestDelta delta = MakeDelta(d, f);
    Check(chunk, d, f, project, controls, &delta, poison);
  }

  // How far a ΔW may be off after an update, against the sizes of both: what v and its inputs are
  // rounded by (a convolved row, a projected one, U itself if a product gives activations), how a
  // ΔW is stored, and sums of float32.
  double UpdateTolerance(bool project, int64_t chunk) const {
    const bool rounds = GetParam().dtype == DType::kBF16 && (project || InputRoundoff() == 0);
    const double sums = 1e-5 * std::sqrt(1 + static_cast<double>(chunk) / 1000);
    return (rounds ? 3 * Roundoff(DType::kBF16) : 0) + DeltaRoundoff() + sums;
  }
};
INSTANTIATE_TEST_SUITE_P(Backends, FastWeightsTest, testing::ValuesIn(BackendCases()), NameOfCase);

void FastWeightsTest::Check(int64_t chunk, int64_t d, int64_t f, bool project,
                            const Controls& controls, TestDelta* delta, double poison) {
  SCOPED_TRACE(testing::Message() << "C " << chunk << ", d " << d << ", f " << f << ", project "
                                  << project << ", poison " << poison);
  const Tensor target = RandomActivations(chunk, d);
  Tensor z = RandomActivations(chunk, f);
  if (poison != 0) z.at(chunk / 2, f / 2) = poison;
  const Tensor conv = Random(d, 5, DType::kF32, 0.5);
  const Tensor projection =
      project ? Random(d, d, DType::kBF16, 1 / std::sqrt(static_cast<double>(d))) : Tensor();
  const Tensor u = reference::Update(target, z, conv, projection, kRate);
  const Tensor before = delta != nullptr ? delta->values : Tensor(d, f);
  const auto expected = reference::Apply(before, u, controls);

  std::unique_ptr<PackedMatrix> packed;
  if (project) {
    Tensor transposed(d, d);
    for (int64_t i = 0; i < d; ++i) {
      for (int64_t j = 0; j < d; ++j) transposed.at(j, i) = projection.at(i, j);
    }
    packed = Pack(transposed);
  }
  const DeviceMatrix targets = UploadActivations(target, d + 7), zs = UploadActivations(z, f + 1);
  const DeviceMatrix convs = Upload(conv, DType::kF32);
  TestDelta fresh{PoisonedBytes(backend_->DeltaBytes(d, f)), {}};
  const DeviceBuffer& slab = delta != nullptr ? delta->buffer : fresh.buffer;
  const FastWeightLayer layer{convs.view, packed.get(), static_cast<float>(kRate),
                              controls.down_norm};
  const ChunkUpdate update{.target = targets.view,
                           .z = zs.view,
                           .delta = slab.data(),
                           .delta_is_zero = delta == nullptr,
                           .lr_scale = static_cast<float>(controls.lr_scale),
                           .clip_norm = static_cast<float>(controls.clip_norm),
                           .decay = static_cast<float>(controls.decay),
                           .max_relative_norm = static_cast<float>(controls.max_relative_norm)};
  ChunkUpdateResult result;
  stream_->UpdateFastWeights(layer, {&update, 1}, &result);
  const Tensor after = ReadDelta(slab, d, f);

  EXPECT_EQ(result.skipped, expected.skipped);
  EXPECT_EQ(result.clipped, expected.clipped);
  EXPECT_EQ(std::isfinite(result.update_norm), std::isfinite(expected.update_norm));
  const double relative = UpdateTolerance(project, chunk);
  const double norm = reference::Norm(expected.delta);
  if (!std::isfinite(expected.update_norm) || expected.skipped) {  // nothing changes
    for (size_t i = 0; i < after.values.size(); ++i) {
      ASSERT_EQ(after.values[i], before.values[i]);
    }
  }
  if (std::isfinite(expected.update_norm)) {
    EXPECT_NEAR(result.update_norm, expected.update_norm, relative * expected.update_norm);
  }
  // Errors are of the size that the Frobenius norms of ΔW and the update give an element.
  const double size = norm + reference::Norm(before);
  EXPECT_NEAR(result.delta_norm, norm, relative * size);
  Tensor difference = after;
  for (size_t i = 0; i < after.values.size(); ++i) {
    difference.values[i] -= expected.delta.values[i];
  }
  EXPECT_LE(reference::Norm(difference), relative * size);
}

TEST_P(FastWeightsTest, UpdatesFromChunksOfAnyLength) {
  for (const int64_t chunk : {1, 2, 3, 4, 5, 24, 64}) {
    for (const bool project : {false, true}) {
      Check(chunk, 32, 48, project, {}, nullptr);
      CheckRandom(chunk, 33, 101, project, {});
    }
  }
}

// More rows than a grid has blocks in y.
TEST_P(FastWeightsTest, UpdatesFromVeryLongChunks) { Check(70'000, 16, 8, true, {}, nullptr); }

TEST_P(FastWeightsTest, UpdatesAtTheSizeOfAModel) { CheckRandom(64, 256, 768, true, {}); }

TEST_P(FastWeightsTest, ObeysEveryControl) {
  const std::vector<Controls> all = {
      {.lr_scale = 0.125},
      {.lr_scale = 0},
      {.clip_norm = 0.5},
      {.clip_norm = 1e9},
      {.decay = 0.25},
      {.max_relative_norm = 1e6},
      {.max_relative_norm = 1e-6},
      {.lr_scale = 2, .clip_norm = 3, .decay = 0.5, .max_relative_norm = 2, .down_norm = 40},
      {.clip_norm = 3, .decay = 0.5, .max_relative_norm = 1e-3, .down_norm = 40}};
  for (const Controls& controls : all) {
    for (const bool project : {false, true}) {
      Check(8, 40, 56, project, controls, nullptr);
      CheckRandom(8, 40, 56, project, controls);
    }
  }
}

TEST_P(FastWeightsTest, SkipsAnUpdateThatIsNotFiniteWithoutDecay) {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double poison : {infinity, -infinity, std::nan("")}) {
    CheckRandom(8, 16, 24, false, {.decay = 0.5}, poison);
    Check(8, 16, 24, true, {.clip_norm = 1}, nullptr, poison);
  }
}

TEST_P(FastWeightsTest, AnUpdateWhoseSquaresExceedFloat32IsFinite) {
  CheckRandom(8, 16, 24, false, {}, 0x1p100);
}

TEST_P(FastWeightsTest, SmallUpdatesSurviveAccumulation) {
  // 256 updates of 2⁻¹⁵ on weights of 1, to 1 + 2⁻⁷, the next number in bfloat16: rounding to the
  // nearest would lose every one. Stochastic rounding steps by 2⁻⁷ with probability 2⁻⁸ each time:
  // the steps of one element have mean 1 and variance 1, and are independent between elements.
  constexpr int64_t kD = 64, kF = 96;
  constexpr double kStep = 0x1p-7;
  Tensor conv(kD, 5), row(1, kD), z(1, kF);
  for (int64_t i = 0; i < kD; ++i) conv.at(i, 2) = row.at(0, i) = 1;
  for (double& x : z.values) x = 1;
  const DeviceMatrix convs = Upload(conv, DType::kF32);
  const DeviceMatrix targets = UploadActivations(row), zs = UploadActivations(z);
  const DeviceBuffer delta = PoisonedBytes(backend_->DeltaBytes(kD, kF));
  ChunkUpdate update{
      .target = targets.view, .z = zs.view, .delta = delta.data(), .delta_is_zero = true};
  ChunkUpdateResult result;
  const FastWeightLayer whole{convs.view, nullptr, 1.0f, 1.0};
  stream_->UpdateFastWeights(whole, {&update, 1}, &result);
  for (const double x : ReadDelta(delta, kD, kF).values) ASSERT_EQ(x, 1);
  update.delta_is_zero = false;
  const FastWeightLayer small{convs.view, nullptr, 0x1p-15f, 1.0};
  for (int i = 0; i < 256; ++i) stream_->UpdateFastWeights(small, {&update, 1}, &result);

  const Tensor after = ReadDelta(delta, kD, kF);
  const bool stochastic = GetParam().delta_accumulate == DeltaType::kBFloat16;
  double sum = 0;
  for (const double x : after.values) {
    sum += x - 1;
    ASSERT_NEAR(x, 1 + kStep, stochastic ? 12 * kStep : 256 * 0x1p-24);
  }
  const double count = static_cast<double>(kD * kF);
  EXPECT_NEAR(sum / count, kStep, stochastic ? 6 * kStep / std::sqrt(count) : 256 * 0x1p-24);
}

TEST_P(FastWeightsTest, UpdatesOfSeveralSessionsStayApart) {
  const int64_t d = 24, f = 40;
  const Tensor conv = Random(d, 5);
  const DeviceMatrix convs = Upload(conv, DType::kF32);
  const FastWeightLayer layer{convs.view, nullptr, 0.5f, 1.0};
  std::vector<DeviceMatrix> targets, zs;
  std::vector<TestDelta> deltas;
  std::vector<ChunkUpdate> updates;
  std::vector<Tensor> expected;
  for (int i = 0; i < 3; ++i) {
    const Tensor target = RandomActivations(6, d), z = RandomActivations(6, f);
    deltas.push_back(MakeDelta(d, f));
    expected.push_back(reference::Apply(deltas.back().values,
                                        reference::Update(target, z, conv, Tensor(), 0.5), {})
                           .delta);
    targets.push_back(UploadActivations(target));
    zs.push_back(UploadActivations(z));
    updates.push_back(
        {.target = targets.back().view, .z = zs.back().view, .delta = deltas.back().buffer.data()});
  }
  std::vector<ChunkUpdateResult> results(3);
  stream_->UpdateFastWeights(layer, updates, results.data());
  for (size_t i = 0; i < 3; ++i) {
    const Tensor after = ReadDelta(deltas[i].buffer, d, f);
    const double norm = reference::Norm(expected[i]);
    Tensor difference = after;
    for (size_t j = 0; j < after.values.size(); ++j) {
      difference.values[j] -= expected[i].values[j];
    }
    EXPECT_LE(reference::Norm(difference), 2 * UpdateTolerance(false, 6) * norm);
    EXPECT_NEAR(results[i].delta_norm, norm, 2 * UpdateTolerance(false, 6) * norm);
  }
}

}  // namespace
}  // namespace mneme
