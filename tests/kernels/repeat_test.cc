// Steps that are recorded once and run again: each must do what its own declaration says.

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "tests/kernels/backend_fixture.h"
#include "tests/kernels/reference_sampler.h"

namespace mneme {
namespace {

constexpr int64_t kHidden = 32, kIntermediate = 24, kVocab = 40;
constexpr int64_t kMaxRows = 64, kPages = 40, kChunk = 16;
constexpr int64_t kQueryHeads = 2, kKvHeads = 1, kQkvHeads = kQueryHeads + 2 * kKvHeads;

// What a step changes, and the scratch memory that it takes.
struct State {
  DeviceMatrix x, h, qkv, rope, attended, gate_up, z, logits, logits_read, pool;
  DeviceBuffer sampled, kept;
};

// A declared step and all that it points to.
struct StepData {
  std::vector<int32_t> tokens;
  std::vector<std::vector<int32_t>> pages;
  std::vector<PageTable> tables;
  std::vector<SequenceRows> sequences;
  std::vector<std::vector<const void*>> deltas;
  std::vector<ChunkSegment> segments;
  absl::Span<const ChunkSegment> wave;
  std::vector<SamplingParams> params;
  std::vector<std::vector<TokenCount>> counts;
  std::vector<int32_t> forbidden;
  std::vector<SampleRow> samples;
  int64_t padded_rows = 0;

  RowBatch batch() const {
    return {.token_ids = tokens,
            .sequences = sequences,
            .padded_rows = padded_rows,
            .waves = {&wave, 1},
            .samples = samples};
  }
};

class RepeatTest : public BackendTest {
 protected:
  void SetUp() override {
    BackendTest::SetUp();
    if (!IsSkipped() && !HasFatalFailure()) MakeModel(16, 4);
  }

  void MakeModel(int64_t head_dim, int64_t page_tokens) {
    head_dim_ = head_dim;
    page_tokens_ = page_tokens;
    table_ = UploadActivations(RandomActivations(kVocab, kHidden));
    norm_ = Upload(Random(1, kHidden), DType::kF32);
    qkv_ = Pack(Random(kQkvHeads * head_dim, kHidden, DType::kBF16, 0.2));
    o_ = Pack(Random(kHidden, kQueryHeads * head_dim, DType::kBF16, 0.2));
    gate_up_ = Pack(Random(2 * kIntermediate, kHidden, DType::kBF16, 0.2));
    down_ = Pack(Random(kHidden, kIntermediate, DType::kBF16, 0.2));
    head_ = Pack(Random(kVocab, kHidden, DType::kBF16, 0.3));
    frequencies_.clear();
    for (int64_t i = 0; i < head_dim / 2; ++i) {
      frequencies_.push_back(std::pow(0.5, static_cast<double>(i)));
    }
    deltas_.clear();
    for (int i = 0; i < 3; ++i) deltas_.push_back(MakeDelta(kHidden, kIntermediate));
  }

  State MakeState() {
    return {PoisonedActivations(kMaxRows, kHidden),
            PoisonedActivations(kMaxRows, kHidden),
            PoisonedActivations(kMaxRows, kQkvHeads * head_dim_),
            Poisoned(kMaxRows, head_dim_, DType::kF32),
            PoisonedActivations(kMaxRows, kQueryHeads * head_dim_),
            PoisonedActivations(kMaxRows, 2 * kIntermediate),
            PoisonedActivations(kMaxRows, kIntermediate),
            Poisoned(kMaxRows, kVocab, DType::kF32),
            Poisoned(kMaxRows, kVocab, DType::kF32),
            Poisoned(kPages, 2 * page_tokens_ * kKvHeads * head_dim_, backend_->kv_dtype()),
            PoisonedBytes(kMaxRows * static_cast<int64_t>(sizeof(SampledRow))),
            PoisonedBytes(3 * BlockBytes())};
  }
  int64_t RowBytes(int64_t cols) const { return cols * SizeOf(backend_->activation_dtype()); }
  int64_t BlockBytes() const { return kChunk * RowBytes(kHidden + kIntermediate); }

  // A step of three sequences, of that many rows each, behind `past` positions each.
  StepData MakeStep(const std::vector<int64_t>& past, const std::vector<int64_t>& rows,
                    const State& state, int number);
  void RunLayer(const State& state, int64_t n);
  void RunEnds(const State& state, int64_t n);

  // Makes the same steps twice, as they are and by Repeat, and compares what each leaves behind.
  void CompareSteps();

  int64_t head_dim_ = 0, page_tokens_ = 0;
  DeviceMatrix table_, norm_;
  std::unique_ptr<PackedMatrix> qkv_, o_, gate_up_, down_, head_;
  std::vector<double> frequencies_;
  std::vector<TestDelta> deltas_;
};
INSTANTIATE_TEST_SUITE_P(Backends, RepeatTest, testing::ValuesIn(BackendCases()), NameOfCase);

StepData RepeatTest::MakeStep(const std::vector<int64_t>& past, const std::vector<int64_t>& rows,
                              const State& state, int number) {
  StepData step;
  const size_t count = past.size();
  step.pages.resize(count);
  step.deltas.resize(count);
  step.params.resize(count);
  step.counts.resize(count);
  step.forbidden = {static_cast<int32_t>(number), 7};
  for (size_t s = 0; s < count; ++s) {
    const int64_t index = static_cast<int64_t>(s);
    for (int64_t i = 0; i * page_tokens_ < past[s] + rows[s]; ++i) {
      step.pages[s].push_back(static_cast<int32_t>(i * 3 + index));
    }
    step.tables.push_back({step.pages[s], 0});
    // Which fast weights a sequence has, and whether its rows are kept, changes.
    const size_t delta = (s + static_cast<size_t>(number)) % 4;
    step.deltas[s] = {delta < 3 ? deltas_[delta].buffer.data() : nullptr};
    step.params[s] = {.temperature = (index + number) % 3 == 0 ? 0.0F : 0.9F,
                      .top_p = index == 1 ? 0.8F : 1.0F,
                      .top_k = number == 1 ? 9 : 0,
                      .presence_penalty = index == 2 ? 1.5F : 0.0F,
                      .seed = static_cast<uint64_t>(number * 100 + index)};
    for (int32_t id = 0; id <= number; ++id) step.counts[s].push_back({id * 5, 1 + id});
  }
  for (size_t s = 0; s < count; ++s) {
    const int64_t index = static_cast<int64_t>(s);
    const int64_t first_row = static_cast<int64_t>(step.tokens.size());
    for (int64_t i = 0; i < rows[s]; ++i) {
      step.tokens.push_back(static_cast<int32_t>(RandomInt(0, kVocab - 1)));
    }
    step.sequences.push_back({first_row, rows[s], past[s], {&step.tables[s], 1}});
    const bool keeps = (index + number) % 3 != 1;
    void* kept = static_cast<char*>(state.kept.data()) + index * BlockBytes();
    step.segments.push_back(
        {first_row, rows[s], step.deltas[s], keeps ? kept : nullptr, past[s] % kChunk});
    step.samples.push_back({.params = &step.params[s],
                            .position = static_cast<uint64_t>(past[s] + rows[s]),
                            .counts = step.counts[s],
                            .forbidden = step.forbidden,
                            .top_logprobs = 2});
  }
  step.wave = step.segments;
  step.padded_rows = static_cast<int64_t>(step.tokens.size());
  return step;
}

void RepeatTest::RunLayer(const State& s, int64_t n) {
  const auto rows = [&](const DeviceMatrix& m) { return m.view.Rows(0, n); };
  const QkvShape shape{kQueryHeads, kKvHeads, head_dim_};
  const KvLayer kv{s.pool.view.data,
                   s.pool.view.dtype,
                   s.pool.view.stride * SizeOf(s.pool.view.dtype),
                   page_tokens_,
                   kKvHeads,
                   head_dim_,
                   0};
  stream_->Embed(table_.view, rows(s.x));
  stream_->ComputeRope({.inverse_frequencies = frequencies_}, rows(s.rope));
  stream_->NormLinear(rows(s.x), {norm_.view.data, 1e-6f}, *qkv_, nullptr, rows(s.h), rows(s.qkv));
  stream_->RotateAndAttend(rows(s.qkv), shape, {}, rows(s.rope), kv, 0, 0.25f, rows(s.attended));
  stream_->Linear(rows(s.attended), *o_, nullptr, true, rows(s.x));
  stream_->LinearSwiGlu(rows(s.x), {norm_.view.data, 1e-6f, /*wanted=*/true}, *gate_up_, rows(s.h),
                        rows(s.gate_up), rows(s.z));
  stream_->DownProjectAndKeep(0, 0, {rows(s.h), 0, rows(s.z), kChunk * RowBytes(kHidden)}, *down_,
                              rows(s.x));
}

void RepeatTest::RunEnds(const State& s, int64_t n) {
  const auto rows = [&](const DeviceMatrix& m) { return m.view.Rows(0, n); };
  stream_->NormLinear(rows(s.x), {norm_.view.data, 1e-6f}, *head_, nullptr, rows(s.h),
                      rows(s.logits));
  stream_->CopyRows(rows(s.logits), rows(s.logits_read));
  stream_->Sample(rows(s.logits), s.sampled.data());
}

// The draw from those logits, within what sums in float32 may be off.
void ExpectDraw(const SampledRow& drawn, const Tensor& logits, const SampleRow& row) {
  const std::vector<float> values(logits.values.begin(), logits.values.end());
  std::map<int32_t, int> counts;
  for (const TokenCount& entry : row.counts) counts[entry.id] = entry.count;
  SamplingParams params = *row.params;
  const bool greedy = params.temperature == 0;
  if (greedy) params.temperature = 1, params.top_k = 1;
  const std::vector<double> expected =
      ReferenceDistribution(values, params, counts, {row.forbidden.begin(), row.forbidden.end()});
  const double uniform = greedy ? 0 : UniformAt(params.seed, row.position);
  EXPECT_GE(drawn.id, ReferenceDraw(expected, uniform - 1e-5));
  EXPECT_LE(drawn.id, ReferenceDraw(expected, uniform + 1e-5));
  EXPECT_EQ(drawn.num_top, 2);
  EXPECT_NEAR(drawn.logprob, reference::LogProb(logits, 0, drawn.id), 1e-4);
}

void ExpectSame(const Tensor& a, const Tensor& b, double tolerance) {
  ASSERT_EQ(a.values.size(), b.values.size());
  for (size_t i = 0; i < a.values.size(); ++i) {
    if (std::isnan(a.values[i]) && std::isnan(b.values[i])) continue;
    ASSERT_NEAR(a.values[i], b.values[i], tolerance * (1 + std::abs(b.values[i]))) << "at " << i;
  }
}

void RepeatTest::CompareSteps() {
  const State direct = MakeState(), repeated = MakeState();
  const uint64_t random_state = random_();
  constexpr int kSteps = 4;
  std::vector<int64_t> past = {5, 14, 3};  // the second comes to another page and chunk
  const int64_t padded = std::max<int64_t>(3, backend_->RepeatableRows(3));
  ASSERT_LE(padded, kMaxRows);
  for (int number = 0; number < kSteps; ++number) {
    SCOPED_TRACE(testing::Message() << "step " << number);
    const bool prefill = number == 0;
    for (const State* state : {&direct, &repeated}) {
      random_.seed(random_state + static_cast<uint64_t>(number));  // the same tokens for both
      StepData step = prefill ? MakeStep({0, 0, 0}, past, *state, number)
                              : MakeStep(past, {1, 1, 1}, *state, number);
      if (prefill) step.samples.clear();
      if (!prefill) step.padded_rows = padded;
      const int64_t n = step.padded_rows;
      stream_->BeginStep(step.batch());
      const auto operations = [&] {
        RunLayer(*state, n);
        RunEnds(*state, n);
      };
      if (prefill || state == &direct) {
        operations();
      } else {
        stream_->Repeat(static_cast<uint64_t>(head_dim_), operations);
      }
      ASSERT_TRUE(stream_->Synchronize().ok());
      if (prefill) continue;
      std::vector<SampledRow> drawn(3);
      stream_->CopyToHost(drawn.data(), state->sampled.data(), 3 * sizeof(SampledRow));
      const Tensor logits = Read(state->logits_read.view.Rows(0, 3));
      for (size_t i = 0; i < 3; ++i) {
        ExpectDraw(drawn[i], logits.Rows(static_cast<int64_t>(i), 1), step.samples[i]);
      }
    }
    if (!prefill) {
      for (int64_t& position : past) ++position;
    }
    // What differs is how kernels that serve a record add up.
    const double tolerance = 1e-4 + 8 * ActivationRoundoff();
    ExpectSame(Read(repeated.logits_read.view.Rows(0, 3)), Read(direct.logits_read.view.Rows(0, 3)),
               tolerance);
    ExpectSame(Read(repeated.pool.view), Read(direct.pool.view), tolerance);
    const Matrix kept{nullptr, backend_->activation_dtype(), 3,
                      BlockBytes() / SizeOf(backend_->activation_dtype()),
                      BlockBytes() / SizeOf(backend_->activation_dtype())};
    Matrix kept_direct = kept, kept_repeated = kept;
    kept_direct.data = direct.kept.data();
    kept_repeated.data = repeated.kept.data();
    ExpectSame(Read(kept_repeated), Read(kept_direct), tolerance);
  }
}

TEST_P(RepeatTest, EachStepOfAKeyGivesItsOwnResults) { CompareSteps(); }

// As those of large models are: other kernels take them.
TEST_P(RepeatTest, AlsoWithLargeHeads) {
  for (const int64_t head_dim : {64, 128}) {
    SCOPED_TRACE(head_dim);
    MakeModel(head_dim, 16);
    CompareSteps();
  }
}

TEST_P(RepeatTest, KeysKeepTheirOperationsApart) {
  const DeviceMatrix from = Upload(Random(3, 8), DType::kF32);
  const DeviceMatrix first = Poisoned(3, 8, DType::kF32), second = Poisoned(3, 8, DType::kF32);
  State state = MakeState();
  for (int i = 0; i < 3; ++i) {
    StepData step = MakeStep({4, 4, 4}, {1, 1, 1}, state, i);
    step.padded_rows = std::max<int64_t>(3, backend_->RepeatableRows(3));
    for (const uint64_t key : {1, 2}) {
      const Matrix to = key == 1 ? first.view : second.view;
      const Tensor values = Random(3, 8);
      const DeviceMatrix uploaded = Upload(values, DType::kF32);
      stream_->CopyRows(uploaded.view, from.view);
      stream_->BeginStep(step.batch());
      stream_->Repeat(key, [&] { stream_->CopyRows(from.view, to); });
      ExpectNear(Read(to), values, 0);
    }
  }
}

}  // namespace
}  // namespace mneme
