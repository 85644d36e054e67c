// Rotary embedding, the paged cache and attention over it, of several sequences in one batch.

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/kernels/backend_fixture.h"

namespace mneme {
namespace {

struct AttentionCase {
  QkvShape shape;
  int64_t page_tokens = 16;
  int64_t window = 0;
  bool normalise = true;
  // (position of the first row, rows) of each sequence.
  std::vector<std::pair<int64_t, int64_t>> sequences;
  int64_t padding = 0;  // rows beyond those of the sequences
};

// A key of Repeat that no other test uses: tests share their streams.
uint64_t NextKey() {
  static uint64_t key = 1000;
  return ++key;
}

// A sequence of the test: what its cache holds and what its rows must become.
struct SequenceData {
  std::vector<int32_t> pages;
  std::vector<int32_t> other_pages;  // of another group of layers: all are page 0
  std::vector<PageTable> tables;
  int64_t kept_from = 0;  // earlier positions are no longer in the cache
  Tensor k, v;            // of the positions kept, new rows included
  Tensor q;               // of the new rows, rotated
};

class AttentionTest : public BackendTest {
 protected:
  static RopeSpec Rope(int64_t head_dim, std::vector<double>& frequencies) {
    for (int64_t i = 0; i < head_dim / 2; ++i) {
      frequencies.push_back(
          std::pow(1e4, -2 * static_cast<double>(i) / static_cast<double>(head_dim)));
    }
    return {.inverse_frequencies = frequencies, .attention_factor = 1.25};
  }

  // Runs RotateAndStore and Attention on random rows, one after the other and at once, in a
  // repeated step where each sequence has one row, and checks both against the reference.
  void Check(const AttentionCase& c);
  void ExpectAttended(const Tensor& actual, const reference::Attended& expected) const;

 private:
  // Sequences with random pasts and places in a pool; `page_count` pages, of which 0 is nobody's.
  std::vector<SequenceData> MakeSequences(const AttentionCase& c, int64_t& page_count);
  // Appends the rows' keys and values to the sequences, sets their queries.
  static void Advance(const AttentionCase& c, const RopeSpec& rope, const Tensor& qkv,
                      const Tensor& q_weight, const Tensor& k_weight,
                      std::vector<SequenceData>& sequences);
  void ExpectPool(const Tensor& actual, const Tensor& expected) const;
};
INSTANTIATE_TEST_SUITE_P(Backends, AttentionTest, testing::ValuesIn(BackendCases()), NameOfCase);

std::vector<SequenceData> AttentionTest::MakeSequences(const AttentionCase& c,
                                                       int64_t& page_count) {
  const int64_t kv_cols = c.shape.kv_heads * c.shape.head_dim;
  std::vector<SequenceData> sequences(c.sequences.size());
  page_count = 2;
  for (size_t s = 0; s < sequences.size(); ++s) {
    const auto [first, rows] = c.sequences[s];
    const int64_t oldest = c.window > 0 ? std::max<int64_t>(0, first - c.window + 1) : 0;
    sequences[s].kept_from = oldest / c.page_tokens * c.page_tokens;
    const int64_t kept = first + rows - sequences[s].kept_from;
    sequences[s].pages.resize(static_cast<size_t>((kept + c.page_tokens - 1) / c.page_tokens));
    page_count += static_cast<int64_t>(sequences[s].pages.size());
    sequences[s].k = Random(kept, kv_cols, backend_->kv_dtype());
    sequences[s].v = Random(kept, kv_cols, backend_->kv_dtype());
  }
  std::vector<int32_t> shuffled(static_cast<size_t>(page_count - 1));
  std::iota(shuffled.begin(), shuffled.end(), 1);
  std::shuffle(shuffled.begin(), shuffled.end(), random_);
  for (SequenceData& sequence : sequences) {
    for (int32_t& page : sequence.pages) {
      page = shuffled.back();
      shuffled.pop_back();
    }
    sequence.other_pages.resize(sequence.pages.size());
    sequence.tables = {PageTable{sequence.other_pages, sequence.kept_from},
                       PageTable{sequence.pages, sequence.kept_from}};
  }
  return sequences;
}

void AttentionTest::Advance(const AttentionCase& c, const RopeSpec& rope, const Tensor& qkv,
                            const Tensor& q_weight, const Tensor& k_weight,
                            std::vector<SequenceData>& sequences) {
  const auto& [hq, hkv, hd] = c.shape;
  int64_t row = 0;
  for (size_t s = 0; s < sequences.size(); ++s) {
    const auto [first, count] = c.sequences[s];
    SequenceData& sequence = sequences[s];
    const int64_t past = sequence.k.rows - count;
    sequence.q = Tensor(count, hq * hd);
    for (int64_t i = 0; i < count; ++i, ++row) {
      for (int64_t head = 0; head < hq + 2 * hkv; ++head) {
        Tensor values(1, hd);
        for (int64_t j = 0; j < hd; ++j) values.at(0, j) = qkv.at(row, head * hd + j);
        const bool is_q = head < hq, is_v = head >= hq + hkv;
        if (!is_v) {
          if (c.normalise) values = reference::RmsNorm(values, is_q ? q_weight : k_weight, 1e-6);
          reference::Rotate(rope, first + i, 0, 0, values);
        }
        Tensor& to = is_q ? sequence.q : is_v ? sequence.v : sequence.k;
        const int64_t to_row = is_q ? i : past + i;
        const int64_t to_head = is_q ? head : is_v ? head - hq - hkv : head - hq;
        for (int64_t j = 0; j < hd; ++j) to.at(to_row, to_head * hd + j) = values.at(0, j);
      }
    }
  }
}

// What was not written is NaN and stays so.
void AttentionTest::ExpectPool(const Tensor& actual, const Tensor& expected) const {
  const double roundoff = Roundoff(backend_->kv_dtype());
  for (size_t i = 0; i < expected.values.size(); ++i) {
    if (std::isnan(expected.values[i])) {
      ASSERT_TRUE(std::isnan(actual.values[i])) << "at " << i;
    } else {
      ASSERT_NEAR(actual.values[i], expected.values[i],
                  8 * kElementTolerance + 1.01 * roundoff * std::abs(expected.values[i]))
          << "at " << i;
    }
  }
}

// Rounded queries, keys and probabilities make independent errors in each score, of about one unit
// roundoff of the activations; ten times that is far out.
void AttentionTest::ExpectAttended(const Tensor& actual,
                                   const reference::Attended& expected) const {
  for (size_t i = 0; i < expected.out.values.size(); ++i) {
    const double rounded = std::abs(expected.out.values[i]) + 10 * expected.spread.values[i];
    ASSERT_NEAR(actual.values[i], expected.out.values[i],
                16 * kElementTolerance + ActivationRoundoff() * rounded)
        << "at " << i;
  }
}

void AttentionTest::Check(const AttentionCase& c) {
  const auto& [hq, hkv, hd] = c.shape;
  SCOPED_TRACE(testing::Message() << hq << " query heads, " << hkv << " kv heads of " << hd
                                  << ", pages of " << c.page_tokens << ", window " << c.window
                                  << ", " << c.sequences.size() << " sequences");
  std::vector<double> frequencies;
  const RopeSpec rope = Rope(hd, frequencies);
  const DType kv_dtype = backend_->kv_dtype();
  const Tensor q_weight = Random(1, hd), k_weight = Random(1, hd);
  int64_t page_count = 0;
  std::vector<SequenceData> data = MakeSequences(c, page_count);
  std::vector<SequenceRows> batch;
  int64_t n = 0;
  for (size_t s = 0; s < data.size(); ++s) {
    batch.push_back({n, c.sequences[s].second, c.sequences[s].first, data[s].tables});
    n += c.sequences[s].second;
  }

  // The pool: pages of two layers, of which the second is the one at hand.
  const int64_t layer_elements = 2 * c.page_tokens * hkv * hd;
  Tensor pool(page_count, 2 * layer_elements);
  std::fill(pool.values.begin(), pool.values.end(), std::nan(""));
  const auto fill = [&](bool with_new_rows) {
    for (size_t s = 0; s < data.size(); ++s) {
      const int64_t count = data[s].k.rows - (with_new_rows ? 0 : batch[s].row_count);
      for (int64_t slot = 0; slot < count; ++slot) {
        const int64_t page = data[s].pages[static_cast<size_t>(slot / c.page_tokens)];
        const int64_t k_at = layer_elements + slot % c.page_tokens * hkv * hd;
        for (int64_t j = 0; j < hkv * hd; ++j) {
          pool.at(page, k_at + j) = data[s].k.at(slot, j);
          pool.at(page, k_at + c.page_tokens * hkv * hd + j) = data[s].v.at(slot, j);
        }
      }
    }
  };
  fill(false);
  const Tensor past = pool;
  const int64_t padded = n + c.padding;
  const Tensor qkv = RandomActivations(padded, (hq + 2 * hkv) * hd);
  Advance(c, rope, qkv, q_weight, k_weight, data);
  fill(true);

  const DeviceMatrix q_weights = Upload(q_weight, DType::kF32);
  const DeviceMatrix k_weights = Upload(k_weight, DType::kF32);
  const DeviceMatrix angles = Poisoned(padded, hd, DType::kF32);
  const std::vector<int32_t> tokens(static_cast<size_t>(n));
  const float scale = 1 / std::sqrt(static_cast<float>(hd));
  const QkNorm norm =
      c.normalise ? QkNorm{q_weights.view.data, k_weights.view.data, 1e-6f} : QkNorm{};
  for (const bool at_once : {false, true}) {
    SCOPED_TRACE(testing::Message() << "at once: " << at_once);
    const DeviceMatrix rows = UploadActivations(qkv), pages = Upload(past, kv_dtype);
    const DeviceMatrix out = PoisonedActivations(padded, hq * hd);
    const KvLayer kv{pages.view.Columns(layer_elements, 1).data,
                     kv_dtype,
                     2 * layer_elements * SizeOf(kv_dtype),
                     c.page_tokens,
                     hkv,
                     hd,
                     1};
    const auto operations = [&] {
      stream_->ComputeRope(rope, angles.view);
      if (at_once) {
        stream_->RotateAndAttend(rows.view, c.shape, norm, angles.view, kv, c.window, scale,
                                 out.view);
      } else {
        stream_->RotateAndStore(rows.view, c.shape, norm, angles.view, kv);
        stream_->Attention(rows.view, c.shape, kv, c.window, scale, out.view);
      }
    };
    stream_->BeginStep({.token_ids = tokens, .sequences = batch, .padded_rows = padded});
    if (at_once && n == static_cast<int64_t>(batch.size())) {
      stream_->Repeat(NextKey(), operations);
    } else {
      operations();
    }
    ASSERT_TRUE(stream_->Synchronize().ok());

    ExpectPool(Read(pages.view), pool);
    const Tensor result = Read(out.view);
    for (size_t s = 0; s < data.size(); ++s) {
      SCOPED_TRACE(testing::Message() << "sequence " << s);
      ExpectAttended(result.Rows(batch[s].first_row, batch[s].row_count),
                     reference::Attention(data[s].q, data[s].k, data[s].v, c.shape, c.window,
                                          static_cast<double>(scale)));
    }
  }
}

TEST_P(AttentionTest, PrefillFromTheStart) {
  Check({.shape = {4, 4, 64}, .sequences = {{0, 1}}});
  Check({.shape = {4, 2, 32}, .sequences = {{0, 100}}});
  Check({.shape = {16, 8, 128}, .sequences = {{0, 70}}});
}

TEST_P(AttentionTest, DecodeRowsAndPrefillPiecesOfSeveralSequencesTogether) {
  Check({.shape = {8, 2, 64}, .sequences = {{200, 1}, {0, 37}, {65, 1}, {127, 70}, {15, 2}}});
  Check({.shape = {3, 1, 96}, .sequences = {{0, 1}, {64, 64}, {300, 1}}});
}

TEST_P(AttentionTest, OddHeadsPagesAndGroups) {
  Check({.shape = {5, 5, 16}, .page_tokens = 1, .sequences = {{9, 8}}});
  Check({.shape = {7, 1, 16}, .page_tokens = 7, .sequences = {{33, 30}, {3, 1}}});
  Check({.shape = {6, 3, 6}, .page_tokens = 24, .sequences = {{50, 21}}});
  Check({.shape = {2, 1, 10}, .page_tokens = 100, .normalise = false, .sequences = {{101, 3}}});
  Check({.shape = {80, 1, 8}, .page_tokens = 16, .sequences = {{20, 3}}});
}

TEST_P(AttentionTest, WindowsSmallerAndLargerThanTheContext) {
  for (const int64_t window : {1, 2, 16, 63, 64, 65, 1000}) {
    Check({.shape = {4, 2, 32}, .window = window, .sequences = {{0, 90}, {150, 1}, {77, 40}}});
  }
}

TEST_P(AttentionTest, EarlyPagesMayBeFreedBehindAWindow) {
  Check({.shape = {4, 4, 64}, .window = 128, .sequences = {{16000, 64}, {5000, 1}, {130, 200}}});
  Check({.shape = {4, 1, 32}, .page_tokens = 32, .window = 50, .sequences = {{999, 3}}});
}

TEST_P(AttentionTest, PositionsReachTensOfMillions) {
  Check({.shape = {2, 1, 64}, .window = 40, .sequences = {{10'000'000, 20}, {50'000'001, 1}}});
}

TEST_P(AttentionTest, ALongContextIsSharedOutOverThreads) {
  Check({.shape = {2, 1, 16}, .page_tokens = 64, .sequences = {{3000, 1}}});
  Check({.shape = {2, 1, 16}, .page_tokens = 64, .window = 2500, .sequences = {{3000, 40}}});
}

TEST_P(AttentionTest, TheHeadsOfModelsInGroupsOfEverySize) {
  for (const int64_t head_dim : {64, 128}) {
    for (const int64_t group : {1, 2, 3, 4, 7, 8}) {
      Check({.shape = {2 * group, 2, head_dim},
             .sequences = {{40, 1}, {0, 33}, {95, 1}, {16, 18}, {31, 1}}});
      Check({.shape = {2 * group, 2, head_dim},
             .window = 24,
             .sequences = {{40, 1}, {5, 33}, {0, 1}, {64, 50}}});
    }
  }
}

TEST_P(AttentionTest, ALongPieceOfAPromptAfterALongContext) {
  Check({.shape = {4, 1, 64}, .sequences = {{400, 300}}});
  Check({.shape = {2, 1, 128}, .sequences = {{400, 300}}});
  Check({.shape = {2, 1, 128}, .window = 130, .sequences = {{400, 300}, {700, 1}}});
}

// Heads enough that kernels for many rows are worth it.
TEST_P(AttentionTest, PromptsOfManyHeads) {
  Check({.shape = {44, 2, 128}, .sequences = {{0, 257}}});
  Check({.shape = {44, 2, 128}, .window = 100, .sequences = {{90, 260}, {30, 1}}});
  Check({.shape = {66, 2, 64}, .sequences = {{0, 257}}});
}

TEST_P(AttentionTest, DecodesOneLongSequence) {
  for (const int64_t head_dim : {64, 128}) {
    Check({.shape = {8, 2, head_dim}, .sequences = {{4999, 1}}});
    Check({.shape = {4, 1, head_dim}, .window = 3001, .sequences = {{5023, 1}, {0, 1}}});
  }
}

TEST_P(AttentionTest, DecodesBatchesOfRaggedLengths) {
  for (const int count : {1, 2, 7, 33, 70, 600}) {
    AttentionCase c{.shape = {4, 2, 64}};
    const int64_t longest = count < 100 ? 150 : 24;  // the reference takes its time
    for (int i = 0; i < count; ++i) c.sequences.push_back({RandomInt(0, longest), 1});
    Check(c);
    c.shape = {4, 1, 128};
    c.window = 50;
    Check(c);
  }
}

TEST_P(AttentionTest, RepeatedStepsReadTheirOwnPages) {
  constexpr int64_t kPageTokens = 16, kPages = 50;
  constexpr QkvShape kShape{4, 2, 64};
  constexpr int64_t kKvCols = kShape.kv_heads * kShape.head_dim;
  const DType kv_dtype = backend_->kv_dtype();
  const Tensor pool = Random(kPages, 2 * kPageTokens * kKvCols, kv_dtype);
  const DeviceMatrix pages = Upload(pool, kv_dtype);
  const KvLayer kv{
      pages.view.data, kv_dtype, pool.cols * SizeOf(kv_dtype), kPageTokens, kShape.kv_heads,
      kShape.head_dim, 0};
  const int64_t padded = std::max<int64_t>(2, backend_->RepeatableRows(2));
  const Tensor qkv = RandomActivations(padded, (kShape.query_heads + 4) * kShape.head_dim);
  const DeviceMatrix rows = UploadActivations(qkv);
  const DeviceMatrix out = PoisonedActivations(padded, kShape.query_heads * kShape.head_dim);
  const std::vector<int32_t> tokens(2);
  const uint64_t key = NextKey();
  for (const int64_t length : {20, 3000, 66'001, 70'000, 100}) {
    SCOPED_TRACE(testing::Message() << length << " tokens");
    const std::vector<int64_t> lengths = {length, 33};
    std::vector<std::vector<int32_t>> lists(2);
    std::vector<PageTable> tables;
    std::vector<SequenceRows> sequences;
    for (size_t s = 0; s < 2; ++s) {
      for (int64_t i = 0; i * kPageTokens < lengths[s]; ++i) {
        lists[s].push_back(static_cast<int32_t>(RandomInt(0, kPages - 1)));
      }
      tables.push_back({lists[s], 0});
    }
    for (size_t s = 0; s < 2; ++s) {
      sequences.push_back({static_cast<int64_t>(s), 1, lengths[s] - 1, {&tables[s], 1}});
    }
    stream_->BeginStep({.token_ids = tokens, .sequences = sequences, .padded_rows = padded});
    stream_->Repeat(key, [&] { stream_->Attention(rows.view, kShape, kv, 0, 0.125F, out.view); });
    const Tensor result = Read(out.view);
    for (size_t s = 0; s < 2; ++s) {
      const auto row = static_cast<int64_t>(s);
      Tensor q(1, kShape.query_heads * kShape.head_dim), k(lengths[s], kKvCols),
          v(lengths[s], kKvCols);
      for (int64_t j = 0; j < q.cols; ++j) q.at(0, j) = qkv.at(row, j);
      for (int64_t t = 0; t < lengths[s]; ++t) {
        const int64_t page = lists[s][static_cast<size_t>(t / kPageTokens)];
        for (int64_t j = 0; j < kKvCols; ++j) {
          k.at(t, j) = pool.at(page, t % kPageTokens * kKvCols + j);
          v.at(t, j) = pool.at(page, (kPageTokens + t % kPageTokens) * kKvCols + j);
        }
      }
      ExpectAttended(result.Rows(row, 1), reference::Attention(q, k, v, kShape, 0, 0.125));
    }
  }
}

TEST_P(AttentionTest, PaddingIsStoredNowhere) {
  for (const int64_t padding : {1, 3, 30}) {
    Check({.shape = {4, 2, 64}, .sequences = {{30, 1}, {16, 1}, {100, 1}}, .padding = padding});
    Check({.shape = {4, 4, 128},
           .window = 20,
           .sequences = {{30, 1}, {0, 1}, {15, 1}},
           .padding = padding});
    Check({.shape = {3, 1, 10}, .page_tokens = 5, .sequences = {{9, 4}}, .padding = padding});
  }
}

TEST_P(AttentionTest, RandomShapes) {
  for (int i = 0; i < 12; ++i) {
    const int64_t kv_heads = RandomInt(1, 3);
    AttentionCase c{.shape = {kv_heads * RandomInt(1, 5), kv_heads, 2 * RandomInt(1, 40)}};
    c.page_tokens = RandomInt(1, 40);
    c.window = RandomInt(0, 1) * RandomInt(1, 200);
    c.normalise = RandomInt(0, 1) == 1;
    for (int64_t s = RandomInt(1, 4); s > 0; --s) {
      c.sequences.push_back({RandomInt(0, 200), RandomInt(0, 1) == 0 ? 1 : RandomInt(1, 90)});
    }
    Check(c);
  }
}

}  // namespace
}  // namespace mneme
