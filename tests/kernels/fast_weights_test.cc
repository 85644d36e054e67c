// Applying and updating fast weights.

#include <cmath>
#include <limits>
#include <optional>

#include "tests/kernels/backend_fixture.h"

namespace mneme {
namespace {

using reference::Controls;

class FastWeightsTest : public BackendTest {
 protected:
  static constexpr double kRate = 0.25;

  Tensor RandomDelta(int64_t d, int64_t f) { return Random(d, f, backend_->delta_dtype()); }
  DeviceMatrix UploadDelta(const Tensor& delta) { return Upload(delta, backend_->delta_dtype()); }

  // Updates `delta` (nothing: ΔW = 0 in memory full of NaN) and checks ΔW, norms and flags.
  void Check(int64_t chunk, int64_t d, int64_t f, bool project, const Controls& controls,
             const std::optional<Tensor>& delta, double poison = 0);
};
INSTANTIATE_TEST_SUITE_P(Backends, FastWeightsTest, testing::ValuesIn(BackendCases()), NameOfCase);

void FastWeightsTest::Check(int64_t chunk, int64_t d, int64_t f, bool project,
                            const Controls& controls, const std::optional<Tensor>& delta,
                            double poison) {
  SCOPED_TRACE(testing::Message() << "C " << chunk << ", d " << d << ", f " << f << ", project "
                                  << project << ", poison " << poison);
  const Tensor target = RandomActivations(chunk, d);
  Tensor z = RandomActivations(chunk, f);
  if (poison != 0) z.at(chunk / 2, f / 2) = poison;
  const Tensor conv = Random(d, 5, DType::kF32, 0.5);
  const Tensor projection =
      project ? Random(d, d, DType::kBF16, 1 / std::sqrt(static_cast<double>(d))) : Tensor();
  const Tensor u = reference::Update(target, z, conv, projection, kRate);
  const auto expected = reference::Apply(delta ? *delta : Tensor(d, f), u, controls);

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
  const DeviceMatrix deltas = delta ? UploadDelta(*delta) : Poisoned(d, f, backend_->delta_dtype());
  const FastWeightLayer layer{convs.view, packed.get(), static_cast<float>(kRate),
                              controls.down_norm};
  const ChunkUpdate update{.target = targets.view,
                           .z = zs.view,
                           .delta = deltas.view.data,
                           .delta_is_zero = !delta.has_value(),
                           .lr_scale = static_cast<float>(controls.lr_scale),
                           .clip_norm = static_cast<float>(controls.clip_norm),
                           .decay = static_cast<float>(controls.decay),
                           .max_relative_norm = static_cast<float>(controls.max_relative_norm)};
  ChunkUpdateResult result;
  stream_->UpdateFastWeights(layer, {&update, 1}, &result);
  const Tensor after = Read(deltas.view);

  EXPECT_EQ(result.skipped, expected.skipped);
  EXPECT_EQ(result.clipped, expected.clipped);
  EXPECT_EQ(std::isfinite(result.update_norm), std::isfinite(expected.update_norm));
  // v and U are products: errors against the size that the Frobenius norm gives an element.
  const bool rounded = project && GetParam().matmul_dtype == DType::kBF16;
  const double relative = (rounded ? 2 * 0x1p-8 : 0) + 1e-5;
  const double norm = reference::Norm(expected.delta);
  if (std::isfinite(expected.update_norm)) {
    EXPECT_NEAR(result.update_norm, expected.update_norm, relative * expected.update_norm);
  }
  EXPECT_NEAR(result.delta_norm, norm, relative * norm);
  Tensor difference = after;
  for (size_t i = 0; i < after.values.size(); ++i) {
    difference.values[i] -= expected.delta.values[i];
  }
  EXPECT_LE(reference::Norm(difference), relative * norm);
}

TEST_P(FastWeightsTest, UpdatesFromChunksOfAnyLength) {
  for (const int64_t chunk : {1, 2, 3, 4, 5, 24, 64}) {
    for (const bool project : {false, true}) {
      Check(chunk, 32, 48, project, {}, std::nullopt);
      Check(chunk, 33, 101, project, {}, RandomDelta(33, 101));
    }
  }
}

TEST_P(FastWeightsTest, UpdatesAtTheSizeOfAModel) {
  Check(64, 256, 768, true, {}, RandomDelta(256, 768));
}

TEST_P(FastWeightsTest, ObeysEveryControl) {
  const Tensor delta = RandomDelta(40, 56);
  const std::vector<std::optional<Tensor>> deltas = {std::nullopt, delta};
  for (const std::optional<Tensor>& before : deltas) {
    for (const bool project : {false, true}) {
      Check(8, 40, 56, project, {.lr_scale = 0.125}, before);
      Check(8, 40, 56, project, {.lr_scale = 0}, before);
      Check(8, 40, 56, project, {.clip_norm = 0.5}, before);
      Check(8, 40, 56, project, {.clip_norm = 1e9}, before);
      Check(8, 40, 56, project, {.decay = 0.25}, before);
      Check(8, 40, 56, project, {.max_relative_norm = 1e6}, before);
      Check(8, 40, 56, project, {.max_relative_norm = 1e-6}, before);
      Check(8, 40, 56, project,
            {.lr_scale = 2, .clip_norm = 3, .decay = 0.5, .max_relative_norm = 2, .down_norm = 40},
            before);
      Check(8, 40, 56, project,
            {.clip_norm = 3, .decay = 0.5, .max_relative_norm = 1e-3, .down_norm = 40}, before);
    }
  }
}

TEST_P(FastWeightsTest, SkipsAnUpdateThatIsNotFiniteWithoutDecay) {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double poison : {infinity, -infinity, std::nan("")}) {
    Check(8, 16, 24, false, {.decay = 0.5}, RandomDelta(16, 24), poison);
    Check(8, 16, 24, true, {.clip_norm = 1}, std::nullopt, poison);
  }
}

TEST_P(FastWeightsTest, AnUpdateWhoseSquaresExceedFloat32IsFinite) {
  Check(8, 16, 24, false, {}, RandomDelta(16, 24), 1e30);
}

TEST_P(FastWeightsTest, SmallUpdatesSurviveAccumulation) {
  // 1,000 updates of 2⁻¹⁵ on a weight of 1: bfloat16 would lose every one.
  const int64_t d = 3, f = 5;
  Tensor ones(d, f);
  for (double& x : ones.values) x = 1;
  Tensor conv(d, 5), row(1, d), z(1, f);
  for (int64_t i = 0; i < d; ++i) conv.at(i, 2) = row.at(0, i) = 1;
  for (double& x : z.values) x = 1;
  const DeviceMatrix delta = UploadDelta(ones), convs = Upload(conv, DType::kF32);
  const DeviceMatrix targets = UploadActivations(row), zs = UploadActivations(z);
  const FastWeightLayer layer{convs.view, nullptr, 0x1p-15f, 1.0};
  const ChunkUpdate update{.target = targets.view, .z = zs.view, .delta = delta.view.data};
  ChunkUpdateResult result;
  for (int i = 0; i < 1000; ++i) stream_->UpdateFastWeights(layer, {&update, 1}, &result);
  for (const double x : Read(delta.view).values) EXPECT_NEAR(x, 1 + 1000 * 0x1p-15, 1e-4);
}

TEST_P(FastWeightsTest, UpdatesOfSeveralSessionsStayApart) {
  const int64_t d = 24, f = 40;
  const Tensor conv = Random(d, 5);
  const DeviceMatrix convs = Upload(conv, DType::kF32);
  const FastWeightLayer layer{convs.view, nullptr, 0.5f, 1.0};
  std::vector<DeviceMatrix> targets, zs, deltas;
  std::vector<ChunkUpdate> updates;
  std::vector<Tensor> expected;
  for (int i = 0; i < 3; ++i) {
    const Tensor target = RandomActivations(6, d), z = RandomActivations(6, f);
    const Tensor delta = RandomDelta(d, f);
    expected.push_back(
        reference::Apply(delta, reference::Update(target, z, conv, Tensor(), 0.5), {}).delta);
    targets.push_back(UploadActivations(target));
    zs.push_back(UploadActivations(z));
    deltas.push_back(UploadDelta(delta));
    updates.push_back(
        {.target = targets.back().view, .z = zs.back().view, .delta = deltas.back().view.data});
  }
  std::vector<ChunkUpdateResult> results(3);
  stream_->UpdateFastWeights(layer, updates, results.data());
  for (size_t i = 0; i < 3; ++i) {
    ExpectNear(Read(deltas[i].view), expected[i], 1e-4);
    EXPECT_NEAR(results[i].delta_norm, reference::Norm(expected[i]), 1e-3);
  }
}

TEST_P(FastWeightsTest, DownProjectGivesEachSegmentItsOwnWeights) {
  const int64_t d = 50, f = 70, n = 60;
  const Tensor z = RandomActivations(n, f), before = RandomActivations(n, d);
  const Tensor w = Random(d, f, DType::kBF16);
  const auto packed = Pack(w);
  const DeviceMatrix zs = UploadActivations(z), ys = UploadActivations(before);
  struct Segment {
    int64_t first, count;
    bool learnt;
  };
  const std::vector<Segment> segments = {{0, 1, true},  {1, 1, false}, {2, 2, true},
                                         {4, 7, true},  {12, 8, true}, {20, 9, true},
                                         {29, 3, true}, {40, 20, true}};
  Tensor expected = before, magnitude = before;
  std::vector<DeviceMatrix> deltas;
  std::vector<DeltaRows> rows;
  for (double& x : magnitude.values) x = std::abs(x);
  for (const Segment& segment : segments) {
    Tensor effective = w;
    const Tensor delta = RandomDelta(d, f);
    deltas.push_back(UploadDelta(delta));
    rows.push_back(
        {segment.first, segment.count, segment.learnt ? deltas.back().view.data : nullptr});
    if (segment.learnt) {
      for (size_t i = 0; i < effective.values.size(); ++i) effective.values[i] += delta.values[i];
    }
    const Tensor part = z.Rows(segment.first, segment.count);
    const Tensor product = reference::Linear(part, effective);
    const Tensor base = reference::LinearMagnitude(part, w);
    const Tensor learnt = reference::LinearMagnitude(part, delta);
    for (int64_t i = 0; i < segment.count; ++i) {
      for (int64_t j = 0; j < d; ++j) {
        expected.at(segment.first + i, j) += product.at(i, j);
        magnitude.at(segment.first + i, j) += base.at(i, j) + learnt.at(i, j);
      }
    }
  }
  stream_->DownProject(zs.view, *packed, rows, ys.view);
  ExpectProduct(Read(ys.view), expected, magnitude, 2 * f, ys.view.dtype);
}

}  // namespace
}  // namespace mneme
