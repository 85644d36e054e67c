// How fast streams go, on a clock that each step moves as if it took time.

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/engine/forwarding_backend.h"
#include "tests/engine/loading/tiny_model.h"
#include "tests/engine/loop_harness.h"

namespace mneme {
namespace {

// A step takes 1 ms, and 1 ms more for each session in it; what the most was.
struct StepClock {
  FakeClock* clock = nullptr;
  size_t most_sessions = 0;
};

class TimedStream final : public ForwardingStream {
 public:
  TimedStream(std::unique_ptr<Stream> inner, StepClock& steps)
      : ForwardingStream(std::move(inner)), steps_(steps) {}

  void BeginStep(const RowBatch& batch) override {
    const size_t sessions = batch.sequences.size();
    steps_.most_sessions = std::max(steps_.most_sessions, sessions);
    steps_.clock->Advance(absl::Milliseconds(1 + static_cast<int>(sessions)));
    ForwardingStream::BeginStep(batch);
  }

 private:
  StepClock& steps_;
};

class TimedBackend final : public ForwardingBackend {
 public:
  TimedBackend(std::unique_ptr<Backend> inner, StepClock& steps)
      : ForwardingBackend(std::move(inner)), steps_(steps) {}

  absl::StatusOr<std::unique_ptr<Stream>> CreateStream() override {
    absl::StatusOr<std::unique_ptr<Stream>> stream = ForwardingBackend::CreateStream();
    if (!stream.ok()) return stream;
    return std::make_unique<TimedStream>(*std::move(stream), steps_);
  }

 private:
  StepClock& steps_;
};

class StreamPaceTest : public testing::Test {
 protected:
  StreamPaceTest() {
    TinyModel().Write(dir_.path());
    HarnessOptions options;
    options.engine = {.max_step_tokens = 64,
                      .target_inter_token = absl::Milliseconds(10),
                      .cache_bytes = 16 << 20};
    options.wrap_backend = [this](std::unique_ptr<Backend> inner) {
      return std::make_unique<TimedBackend>(std::move(inner), steps_);
    };
    engine_ = std::make_unique<LoopHarness>(dir_.path(), options);
    steps_.clock = &engine_->clock();
  }

  std::unique_ptr<Call> Start(int64_t tokens) {
    return engine_->StartGenerate("", GreedyRequest(tokens, {1, 2, 3}));
  }

  TemporaryDirectory dir_;
  StepClock steps_;
  std::unique_ptr<LoopHarness> engine_;
};

TEST_F(StreamPaceTest, NoMoreStreamsRunAtOnceThanKeepTheTarget) {
  const auto first = Start(30);  // from which steps' times are learnt
  engine_->RunAll({first.get()});
  steps_.most_sessions = 0;
  std::vector<std::unique_ptr<Call>> calls;
  std::vector<Call*> all;
  for (int i = 0; i < 40; ++i) {
    calls.push_back(Start(20));
    all.push_back(calls.back().get());
  }
  engine_->Step();
  EXPECT_GT(engine_->loop().load().waiting_requests, 20) << "they wait for others to end";
  engine_->RunAll(all);
  for (const Call* call : all) EXPECT_TRUE(EndedOk(*call));
  EXPECT_GE(steps_.most_sessions, 5u);
  EXPECT_LE(steps_.most_sessions, 11u) << "which take longer than the target";
}

TEST_F(StreamPaceTest, AChunkThatNobodyWaitsForIsLearntBesideARunningStream) {
  const auto first = Start(30);
  engine_->RunAll({first.get()});
  engine_->Create("read");
  const auto stream = Start(60);
  engine_->StepUntilTokens(stream.get(), 1);
  const int64_t chunk = engine_->model().config.ttt->chunk;
  const auto append =
      engine_->StartAppend("read", RandomTokens(static_cast<size_t>(chunk), /*seed=*/1, 16));
  while (!append->end) {
    engine_->Step();
    append->Read();
  }
  Session& session = **engine_->loop().FindSession({"test", "read"});
  engine_->Step();
  EXPECT_EQ(session.state().waiting_updates(), 0);
  stream->Read();
  EXPECT_FALSE(stream->end) << "the stream runs on meanwhile";
  engine_->RunAll({stream.get()});
  EXPECT_TRUE(EndedOk(*stream));
}

}  // namespace
}  // namespace mneme
