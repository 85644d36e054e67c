// Multiplying rows by the fast weights that they see.

#include <algorithm>
#include <cmath>
#include <vector>

#include "tests/kernels/backend_fixture.h"

namespace mneme {
namespace {

// A segment of a test: whose ΔW it sees (an index, −1: a null one, −2: none are given).
struct SegmentCase {
  int64_t wave, first_row, row_count;
  int delta;
};

class DownProjectTest : public BackendTest {
 protected:
  static constexpr int64_t kLayer = 1;  // of two; the other one's ΔW are null

  // The open chunk that a segment's rows are kept in, if it has one.
  struct Chunk {
    DeviceBuffer block;
    int64_t length = 0, offset = 0;  // rows of the chunk, and those before the segment's
  };

  // Of every third segment the rows are not kept.
  static bool IsKept(size_t segment) { return segment % 3 != 1; }
  // Whether one part of a chunk's block holds these rows where the segment's belong, or nothing.
  void ExpectKept(const Chunk& chunk, int64_t offset_bytes, const Tensor& rows, bool kept);

  // Runs the waves one after another and checks all rows after each, and what is kept of them.
  void Check(int64_t d, int64_t f, const std::vector<SequenceRows>& sequences,
             const std::vector<SegmentCase>& segments, int64_t num_deltas, int64_t padded_rows);
};
INSTANTIATE_TEST_SUITE_P(Backends, DownProjectTest, testing::ValuesIn(BackendCases()), NameOfCase);

Tensor Sum(const Tensor& a, const Tensor& b) {
  Tensor out = a;
  for (size_t i = 0; i < a.values.size(); ++i) out.values[i] += b.values[i];
  return out;
}

Tensor RowLargest(const Tensor& a) {
  Tensor out(a.rows, a.cols);
  for (int64_t i = 0; i < a.rows; ++i) {
    double largest = 0;
    for (int64_t j = 0; j < a.cols; ++j) largest = std::max(largest, std::abs(a.at(i, j)));
    for (int64_t j = 0; j < a.cols; ++j) out.at(i, j) = largest;
  }
  return out;
}

void DownProjectTest::ExpectKept(const Chunk& chunk, int64_t offset_bytes, const Tensor& rows,
                                 bool kept) {
  const Tensor held = Read({static_cast<char*>(chunk.block.data()) + offset_bytes,
                            backend_->activation_dtype(), chunk.length, rows.cols, rows.cols});
  for (int64_t i = 0; i < chunk.length; ++i) {
    const int64_t row = i - chunk.offset;
    const bool has = kept && row >= 0 && row < rows.rows;
    for (int64_t j = 0; j < rows.cols; ++j) {
      if (has) {
        ASSERT_EQ(held.at(i, j), rows.at(row, j)) << "at [" << i << ", " << j << "]";
      } else {
        ASSERT_TRUE(std::isnan(held.at(i, j))) << "at [" << i << ", " << j << "]";
      }
    }
  }
}

void DownProjectTest::Check(int64_t d, int64_t f, const std::vector<SequenceRows>& sequences,
                            const std::vector<SegmentCase>& segments, int64_t num_deltas,
                            int64_t padded_rows) {
  SCOPED_TRACE(testing::Message() << "d " << d << ", f " << f << ", rows " << padded_rows);
  const Tensor z = RandomActivations(padded_rows, f), w = Random(d, f, DType::kBF16);
  Tensor y = RandomActivations(padded_rows, d);
  const auto packed = Pack(w);
  const DeviceMatrix zs = UploadActivations(z, f + 8), ys = UploadActivations(y);
  const Tensor target = RandomActivations(padded_rows, d);
  const DeviceMatrix targets = UploadActivations(target, d + 8);
  // Blocks in which rows begin at multiples of 16 bytes, and others.
  const int64_t before = f % 64 == 0 ? 8 : 16;
  const int64_t length = padded_rows + 3, activation_bytes = SizeOf(zs.view.dtype);
  const ChunkRows rows = {targets.view, before, zs.view, before + length * d * activation_bytes};
  std::vector<Chunk> chunks;
  std::vector<TestDelta> deltas;
  std::vector<std::vector<const void*>> layers;  // of each ΔW: null, itself
  for (int64_t i = 0; i < num_deltas; ++i) {
    deltas.push_back(MakeDelta(d, f));
    layers.push_back({nullptr, deltas.back().buffer.data()});
  }
  const std::vector<const void*> nulls(2);
  std::vector<std::vector<ChunkSegment>> waves;
  int64_t n = 0;
  for (const SegmentCase& s : segments) {
    waves.resize(std::max(waves.size(), static_cast<size_t>(s.wave + 1)));
    ChunkSegment segment{.first_row = s.first_row, .row_count = s.row_count};
    if (s.delta >= -1) segment.deltas = s.delta < 0 ? nulls : layers[static_cast<size_t>(s.delta)];
    chunks.push_back({PoisonedBytes(before + length * (d + f) * activation_bytes), length,
                      static_cast<int64_t>(chunks.size() % 4)});
    if (IsKept(chunks.size() - 1)) segment.kept = chunks.back().block.data();
    segment.chunk_offset = chunks.back().offset;
    waves[static_cast<size_t>(s.wave)].push_back(segment);
    n += s.row_count;
  }
  const std::vector<absl::Span<const ChunkSegment>> wave_spans(waves.begin(), waves.end());
  const std::vector<int32_t> tokens(static_cast<size_t>(n));
  stream_->BeginStep({.token_ids = tokens,
                      .sequences = sequences,
                      .padded_rows = padded_rows,
                      .waves = wave_spans});

  for (int64_t wave = 0; wave < static_cast<int64_t>(waves.size()); ++wave) {
    SCOPED_TRACE(testing::Message() << "wave " << wave);
    stream_->DownProjectAndKeep(wave, kLayer, rows, *packed, ys.view);
    const Tensor after = Read(ys.view);
    Tensor changes(n, 1);
    for (const SegmentCase& s : segments) {
      if (s.wave != wave) continue;
      for (int64_t i = 0; i < s.row_count; ++i) changes.at(s.first_row + i, 0) = 1;
      const Tensor in = z.Rows(s.first_row, s.row_count);
      const Tensor delta = s.delta < 0 ? Tensor(d, f) : deltas[static_cast<size_t>(s.delta)].values;
      const Tensor base = reference::Linear(in, w);
      const Tensor product = reference::Linear(in, Sum(w, delta));
      const Tensor magnitude =
          Sum(reference::LinearMagnitude(in, w), reference::LinearMagnitude(in, delta));
      // Every weight's rounding error is one of its own: they add up as roots of squares, and four
      // times as much at the largest error each is far out. ΔW is read as DeltaReadRoundoff says,
      // in fp8 with steps of 2⁻¹⁷ of its row's largest element at least; many rows are multiplied
      // by W + ΔW in W's dtype, and W's product sees inputs of that dtype.
      const Tensor read = reference::LinearSpread(in, delta);
      const Tensor steps = reference::LinearSpread(in, RowLargest(delta));
      const Tensor merged = reference::LinearSpread(in, Sum(w, delta));
      const Tensor inputs = reference::LinearSpread(in, w);
      for (int64_t i = 0; i < s.row_count; ++i) {
        const int64_t row = s.first_row + i;
        for (int64_t j = 0; j < d; ++j) {
          const double expected = y.at(row, j) + product.at(i, j);
          const double size = std::max(
              {std::abs(y.at(row, j)), std::abs(expected), std::abs(y.at(row, j) + base.at(i, j))});
          const double tolerance =
              static_cast<double>(2 * f + 4) * Roundoff(DType::kF32) * (magnitude.at(i, j) + size) +
              4 * DeltaReadRoundoff() * read.at(i, j) +
              (GetParam().delta_read == DeltaType::kFp8E4M3 ? 0x1p-17 * steps.at(i, j) : 0) +
              4 * ActivationRoundoff() * merged.at(i, j) + 4 * InputRoundoff() * inputs.at(i, j) +
              3 * ActivationRoundoff() * size;
          ASSERT_NEAR(after.at(row, j), expected, tolerance) << "at [" << row << ", " << j << "]";
        }
      }
    }
    for (int64_t row = 0; row < n; ++row) {
      if (changes.at(row, 0) == 0) ExpectNear(after.Rows(row, 1), y.Rows(row, 1), 0);
    }
    for (size_t i = 0; i < segments.size(); ++i) {
      SCOPED_TRACE(testing::Message() << "segment " << i);
      const SegmentCase& s = segments[i];
      const bool kept = IsKept(i) && s.wave <= wave;
      ExpectKept(chunks[i], rows.target_offset_bytes, target.Rows(s.first_row, s.row_count), kept);
      ExpectKept(chunks[i], rows.z_offset_bytes, z.Rows(s.first_row, s.row_count), kept);
    }
    y = after;
  }
}

TEST_P(DownProjectTest, SegmentsOfAnyLengthSeeTheirOwnWeights) {
  // Single rows with and without ΔW, pieces of a few, of about ten and of many rows.
  const std::vector<SequenceRows> sequences = {{0, 1, 7, {}},   {1, 1, 0, {}},   {2, 1, 3, {}},
                                               {3, 10, 0, {}},  {13, 9, 1, {}},  {22, 2, 0, {}},
                                               {24, 40, 0, {}}, {64, 17, 0, {}}, {81, 1, 5, {}}};
  const std::vector<SegmentCase> segments = {{0, 0, 1, 0},   {0, 1, 1, -1},   {0, 2, 1, 1},
                                             {0, 3, 10, 2},  {0, 13, 9, -2},  {0, 22, 2, 3},
                                             {0, 24, 40, 4}, {0, 64, 17, -1}, {0, 81, 1, 5}};
  Check(48, 72, sequences, segments, 6, 82);
  Check(50, 71, sequences, segments, 6, 82);
  Check(256, 768, {{0, 1, 0, {}}, {1, 12, 0, {}}, {13, 20, 0, {}}},
        {{0, 0, 1, 0}, {0, 1, 12, 1}, {0, 13, 20, 2}}, 3, 33);
}

TEST_P(DownProjectTest, WavesLeaveTheRowsOfOthersAlone) {
  // Two sequences cross chunk boundaries, the second one twice; the third stays within its chunk.
  const std::vector<SequenceRows> sequences = {{0, 12, 30, {}}, {12, 45, 4, {}}, {57, 3, 1, {}}};
  Check(
      40, 64, sequences,
      {{0, 0, 2, 0}, {1, 2, 10, 0}, {0, 12, 4, -1}, {1, 16, 20, 1}, {2, 36, 21, 1}, {0, 57, 3, 2}},
      3, 60);
}

TEST_P(DownProjectTest, DecodesManySequencesAmongPadding) {
  for (const int64_t count : {1, 2, 5, 8, 9, 31, 64}) {
    std::vector<SequenceRows> sequences;
    std::vector<SegmentCase> segments;
    const int num_deltas = static_cast<int>(std::min<int64_t>(count, 7));
    for (int64_t i = 0; i < count; ++i) {
      sequences.push_back({i, 1, i, {}});
      segments.push_back({0, i, 1, i < num_deltas ? static_cast<int>(i) : -1});
    }
    Check(64, 96, sequences, segments, num_deltas, count + count % 4);
  }
}

TEST_P(DownProjectTest, NoWeightsAtAllGiveTheSlowProduct) {
  Check(40, 64, {{0, 20, 0, {}}, {20, 1, 0, {}}}, {{0, 0, 20, -2}, {0, 20, 1, -2}}, 0, 21);
}

TEST_P(DownProjectTest, AWaveSeesTheUpdatesBeforeIt) {
  // Two sequences of two chunks; in a second step the later chunks see what the first one learnt.
  const int64_t d = 136, f = 200, chunk = 20, n = 4 * chunk;
  const TestDelta deltas[] = {MakeDelta(d, f), MakeDelta(d, f)};
  const void* const layers[] = {deltas[0].buffer.data(), deltas[1].buffer.data()};
  const DeviceMatrix convs = Upload(Random(d, 5, DType::kF32), DType::kF32);
  const DeviceMatrix zs = UploadActivations(RandomActivations(n, f));
  const DeviceMatrix targets = UploadActivations(RandomActivations(n, d));
  const DeviceMatrix ys = UploadActivations(Tensor(n, d)), again = UploadActivations(Tensor(n, d));
  const auto packed = Pack(Random(d, f, DType::kBF16));
  std::vector<ChunkSegment> waves[2];
  std::vector<ChunkUpdate> updates;
  for (int64_t i = 0; i < 2; ++i) {
    for (int64_t wave = 0; wave < 2; ++wave) {
      waves[wave].push_back({.first_row = (2 * i + wave) * chunk,
                             .row_count = chunk,
                             .deltas = absl::MakeConstSpan(&layers[i], 1)});
    }
    updates.push_back({.target = targets.view.Rows(2 * i * chunk, chunk),
                       .z = zs.view.Rows(2 * i * chunk, chunk),
                       .delta = deltas[i].buffer.data()});
  }
  const std::vector<absl::Span<const ChunkSegment>> spans = {waves[0], waves[1]};
  const std::vector<SequenceRows> sequences = {{0, 2 * chunk, 0, {}},
                                               {2 * chunk, 2 * chunk, 0, {}}};
  const std::vector<int32_t> tokens(static_cast<size_t>(n));
  const RowBatch step = {
      .token_ids = tokens, .sequences = sequences, .padded_rows = n, .waves = spans};
  ChunkUpdateResult results[2];
  stream_->BeginStep(step);
  stream_->DownProject(0, 0, zs.view, *packed, ys.view);
  stream_->UpdateFastWeights({convs.view, nullptr, 0.01f, 1.0}, updates, results);
  stream_->DownProject(1, 0, zs.view, *packed, ys.view);
  const Tensor seen = Read(ys.view);
  stream_->BeginStep(step);
  stream_->DownProject(1, 0, zs.view, *packed, again.view);
  const Tensor expected = Read(again.view);
  for (int64_t i = 0; i < 2; ++i) {
    EXPECT_GT(results[i].update_norm, 0);
    const int64_t second = (2 * i + 1) * chunk;
    ExpectNear(seen.Rows(second, chunk), expected.Rows(second, chunk), 0);
  }
}

TEST_P(DownProjectTest, SeesTheLatestUpdate) {
  const int64_t d = 32, f = 48;
  const TestDelta delta = MakeDelta(d, f);
  Tensor conv(d, 5), ones(1, d), first(1, f);
  for (int64_t i = 0; i < d; ++i) conv.at(i, 2) = ones.at(0, i) = 1;
  first.at(0, 0) = 1;
  const DeviceMatrix convs = Upload(conv, DType::kF32), zs = UploadActivations(first);
  const DeviceMatrix targets = UploadActivations(ones), ys = UploadActivations(Tensor(1, d));
  const auto packed = Pack(Tensor(d, f));
  const ChunkUpdate update{
      .target = targets.view, .z = zs.view, .delta = delta.buffer.data(), .decay = 1};
  ChunkUpdateResult result;
  const FastWeightLayer layer{convs.view, nullptr, 8.0f, 1.0};
  const void* const deltas[] = {delta.buffer.data()};
  const ChunkSegment segment{.first_row = 0, .row_count = 1, .deltas = deltas};
  const absl::Span<const ChunkSegment> wave(&segment, 1);
  const SequenceRows sequence{0, 1, 0, {}};
  const int32_t token = 0;
  stream_->BeginStep({.token_ids = {&token, 1},
                      .sequences = {&sequence, 1},
                      .padded_rows = 1,
                      .waves = {&wave, 1}});
  stream_->UpdateFastWeights(layer, {&update, 1}, &result);
  stream_->DownProject(0, 0, zs.view, *packed, ys.view);
  // ΔW is 8 in its first column: a power of two, which every type holds; scales may round.
  for (const double x : Read(ys.view).values) EXPECT_NEAR(x, 8, 8 * DeltaReadRoundoff());
}

}  // namespace
}  // namespace mneme
