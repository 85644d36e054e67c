#include "tests/engine/state_harness.h"

#include <future>
#include <utility>

#include "base/check.h"
#include "engine/tiers/state_mover.h"

namespace mneme {
namespace {

constexpr int64_t kMaxStepTokens = 64;

template <typename T>
T ValueOrDie(absl::StatusOr<T> value) {
  if (!value.ok()) ADD_FAILURE() << value.status();
  MNEME_CHECK(value.ok());
  return std::move(value).value();
}

}  // namespace

StateHarness::StateHarness(const std::string& fixture, BackendKind backend, int64_t slab_bytes)
    : backend_(ValueOrDie(CreateTestBackend(backend, /*cpu_threads=*/1))),
      served_(LoadServedModel(Golden(fixture).dir(), /*with_tokenizer=*/false, *backend_)),
      model_(ValueOrDie(Model::Create(served_.config, served_.weights, *backend_, kMaxStepTokens))),
      pools_(ValueOrDie(
          CachePools::Create(served_.config, *backend_, {.limit_bytes = int64_t{64} << 20}))),
      host_(ValueOrDie(HostPool::Create(*backend_, int64_t{16} << 20, slab_bytes))),
      tokens_(RandomTokens(400, /*seed=*/7, static_cast<int32_t>(served_.config.vocab_size))) {}

std::unique_ptr<Subject> StateHarness::Make(const LearningControls& controls) {
  return std::make_unique<Subject>(*pools_, controls);
}

void StateHarness::Advance(Subject& subject, int64_t rows, int64_t updates) {
  SessionCache& cache = subject.state.cache();
  SequenceStep step;
  step.controls = &subject.controls;
  step.first_position = subject.state.computed();
  const int64_t end = step.first_position + rows;
  ASSERT_TRUE(cache.Reserve(cache.PeakBlocks(step.first_position, end, end, kMaxStepTokens,
                                             subject.controls.latest().max_lag_chunks)));
  const auto begin = tokens_.begin() + step.first_position;
  step.tokens.assign(begin, begin + rows);
  step.last_hidden = subject.state.last_hidden();
  if (rows > 0 || step.first_position > 0) {
    step.sample =
        SampleRow{.params = &greedy_, .position = static_cast<uint64_t>(end), .top_logprobs = 0};
  }
  subject.state.Prepare(step, updates);
  const auto stats = model_->Run(*pools_, {&step, 1});
  ASSERT_TRUE(stats.ok()) << stats.status();
  if (step.sample) {
    subject.drawn.push_back(step.sampled.id);
    subject.logprobs.push_back(step.sampled.logprob);
  }
  subject.state.Commit(step);
  cache.ReleaseUnused();
}

void StateHarness::AdvanceAll(Subject& subject, const std::vector<int64_t>& steps) {
  for (const int64_t rows : steps) Advance(subject, rows);
}

StateImage StateHarness::Capture(Subject& subject) {
  StateShape shape = subject.state.shape();
  const int64_t bytes = ImageBytes(shape, *pools_);
  std::optional<HostMemory> memory = host_->Take(bytes);
  MNEME_CHECK(memory.has_value());
  StateImage image = {std::move(shape), *std::move(memory)};
  Copy(subject, image, /*to_host=*/true);
  return image;
}

void StateHarness::Restore(Subject& subject, const StateImage& image) {
  ASSERT_TRUE(subject.state.Restore(image.shape));
  Copy(subject, image, /*to_host=*/false);
}

void StateHarness::Copy(Subject& subject, const StateImage& image, bool to_host) {
  const auto mover = ValueOrDie(StateMover::Create(*backend_));
  std::promise<absl::Status> done;
  mover->Begin(to_host ? StateMover::Direction::kToHost : StateMover::Direction::kToDevice,
               CopiesBetween(DeviceRanges(subject.state, *pools_), image.bytes.ranges()),
               [&done](absl::Status status) { done.set_value(std::move(status)); });
  const absl::Status status = done.get_future().get();
  EXPECT_TRUE(status.ok()) << status;
}

std::vector<std::vector<float>> StateHarness::Deltas(Subject& subject) {
  std::vector<std::vector<float>> all;
  if (!subject.state.cache().deltas_written()) return all;
  const int64_t d = served_.config.hidden_size, f = served_.config.intermediate_size;
  const auto stream = ValueOrDie(backend_->CreateStream());
  for (const void* delta : subject.state.cache().deltas()) {
    std::vector<float> values(static_cast<size_t>(d * f));
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(float));
    const DeviceBuffer buffer = ValueOrDie(backend_->Allocate(bytes));
    stream->ReadDelta(delta, {buffer.data(), DType::kF32, d, f, f});
    stream->CopyToHost(values.data(), buffer.data(), bytes);
    EXPECT_TRUE(stream->Synchronize().ok());
    all.push_back(std::move(values));
  }
  return all;
}

void ExpectNothingHeld(StateHarness& harness) {
  EXPECT_EQ(harness.pools().held_bytes(), 0);
  EXPECT_EQ(harness.pools().budget().reserved_bytes(), 0);
  EXPECT_EQ(harness.host().held_bytes(), 0);
}

}  // namespace mneme
