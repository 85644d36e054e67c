// Attention whose threads do not wait for one another gives right results nearly always: so the
// same step runs many times over, and must give the same bits.

#include <numeric>

#include "tests/kernels/backend_fixture.h"

namespace mneme {
namespace {

class AttentionRaceTest : public BackendTest {
 protected:
  // One sequence of `rows` tokens from the start, `runs` times.
  void ExpectSameBits(const QkvShape& shape, int64_t rows, int64_t window, int runs);
};
INSTANTIATE_TEST_SUITE_P(Backends, AttentionRaceTest, testing::ValuesIn(BackendCases()),
                         NameOfCase);

void AttentionRaceTest::ExpectSameBits(const QkvShape& shape, int64_t rows, int64_t window,
                                       int runs) {
  constexpr int64_t kPageTokens = 16;
  const int64_t kv_cols = shape.kv_heads * shape.head_dim;
  const DType kv_dtype = backend_->kv_dtype();
  std::vector<int32_t> list(static_cast<size_t>((rows + kPageTokens - 1) / kPageTokens));
  std::iota(list.begin(), list.end(), 0);
  const DeviceMatrix pages = Upload(
      Random(static_cast<int64_t>(list.size()), 2 * kPageTokens * kv_cols, kv_dtype), kv_dtype);
  const KvLayer kv{pages.view.data,
                   kv_dtype,
                   2 * kPageTokens * kv_cols * SizeOf(kv_dtype),
                   kPageTokens,
                   shape.kv_heads,
                   shape.head_dim,
                   0};
  const DeviceMatrix qkv =
      UploadActivations(RandomActivations(rows, shape.query_heads * shape.head_dim + 2 * kv_cols));
  const std::vector<int32_t> tokens(static_cast<size_t>(rows));
  const PageTable table{list, 0};
  const SequenceRows sequence{0, rows, 0, {&table, 1}};
  Tensor first;
  for (int run = 0; run < runs; ++run) {
    const DeviceMatrix out = PoisonedActivations(rows, shape.query_heads * shape.head_dim);
    stream_->BeginStep({.token_ids = tokens, .sequences = {&sequence, 1}, .padded_rows = rows});
    stream_->Attention(qkv.view, shape, kv, window, 0.125F, out.view);
    Tensor result = Read(out.view);
    if (run == 0)
      first = std::move(result);
    else
      ASSERT_EQ(result.values, first.values) << "run " << run;
  }
}

TEST_P(AttentionRaceTest, GivesTheSameBitsEachTime) {
  const int runs = backend_->commits_on_touch() ? 2 : 60;  // a CPU has no such threads
  ExpectSameBits({66, 2, 64}, 257, 0, runs);
  ExpectSameBits({66, 2, 64}, 257, 50, runs);
  ExpectSameBits({44, 2, 128}, 257, 0, runs);
  ExpectSameBits({8, 2, 128}, 700, 0, runs);
}

}  // namespace
}  // namespace mneme
