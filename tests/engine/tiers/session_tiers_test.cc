// Invariant: sessions that leave the device for the host's memory and come back go on as if they
// had stayed; who has a request in flight stays; nothing waits for a move but its own session
// (DESIGN §2.9, §8).

#include "engine/tiers/session_tiers.h"

#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/forwarding_backend.h"
#include "tests/engine/loading/tiny_model.h"
#include "tests/engine/loop_harness.h"

namespace mneme {
namespace {

// The tiny model: a page of 16 positions takes 1,024 bytes, ΔW 384, an open chunk's rows 320.
constexpr int64_t kPageBytes = 1024;
// Any of its sessions takes one slab.
constexpr int64_t kImageBytes = HostPool::kSlabBytes;

// Copies between device and host wait while it is closed.
class Gate {
 public:
  void Close() { Set(true); }
  void Open() { Set(false); }
  void Pass() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !closed_; });
  }

 private:
  void Set(bool closed) {
    {
      std::lock_guard lock(mutex_);
      closed_ = closed;
    }
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool closed_ = false;
};

// Only the movers synchronize on another thread than the test's.
class GatedStream final : public ForwardingStream {
 public:
  GatedStream(std::unique_ptr<Stream> inner, Gate* gate)
      : ForwardingStream(std::move(inner)), gate_(*gate) {}
  absl::Status Synchronize() override {
    if (std::this_thread::get_id() != test_thread_) gate_.Pass();
    return ForwardingStream::Synchronize();
  }

 private:
  Gate& gate_;
  const std::thread::id test_thread_ = std::this_thread::get_id();
};

class GatedBackend final : public UndividedDevice {
 public:
  GatedBackend(std::unique_ptr<Backend> inner, Gate* gate)
      : UndividedDevice(std::move(inner)), gate_(gate) {}
  absl::StatusOr<std::unique_ptr<Stream>> CreateStream() override {
    auto stream = ForwardingBackend::CreateStream();
    if (!stream.ok()) return stream;
    return std::make_unique<GatedStream>(*std::move(stream), gate_);
  }

 private:
  Gate* const gate_;
};

class CountingStats : public StatsSink {
 public:
  void OnParked(int64_t bytes, absl::Duration /*time*/) override { parked_bytes.push_back(bytes); }
  void OnUnparked(int64_t bytes, absl::Duration /*time*/) override {
    unparked_bytes.push_back(bytes);
  }

  std::vector<int64_t> parked_bytes, unparked_bytes;
};

class SessionTiersTest : public testing::TestWithParam<BackendKind> {
 protected:
  void SetUp() override {
    MNEME_SKIP_WITHOUT_BACKEND(GetParam());
    TinyModel().Write(dir_.path());
    engine_ = MakeEngine(Memory(8), 4 * kImageBytes);
    undisturbed_ = MakeEngine(1 << 20, 0);
  }
  void TearDown() override { gate_.Open(); }

  // Memory for so many pages, and for what a ΔW takes more on a GPU.
  static int64_t Memory(int64_t pages) {
    return pages * kPageBytes + (IsCuda(GetParam()) ? 384 : 0);
  }
  std::unique_ptr<LoopHarness> MakeEngine(int64_t cache_bytes, int64_t host_cache_bytes) {
    HarnessOptions options;
    options.engine.max_step_tokens = 16;
    options.engine.cache_bytes = cache_bytes;
    options.engine.host_cache_bytes = host_cache_bytes;
    options.backend = GetParam();
    options.stats = &stats_;
    options.wrap_backend = [this](std::unique_ptr<Backend> inner) {
      return std::make_unique<GatedBackend>(std::move(inner), &gate_);
    };
    return std::make_unique<LoopHarness>(dir_.path(), options);
  }

  static std::vector<int32_t> Tokens(size_t count, uint32_t seed = 1) {
    return RandomTokens(count, seed, 16);
  }
  EngineLoad load() { return engine_->loop().load(); }
  Residence ResidenceOf(const std::string& id) { return engine_->Info(id).residence; }

  // On a GPU a product's sums may come in another order in the other engine.
  static double tolerance() { return IsCuda(GetParam()) ? 1e-4 : 0; }

  // In both engines.
  void Create(const std::string& id, const LearningControls& controls = {}) {
    engine_->Create(id, controls);
    undisturbed_->Create(id, controls);
  }
  // Whole requests in both engines, which must say the same.
  void Append(const std::string& id, const std::vector<int32_t>& tokens) {
    const auto moved = engine_->Append(id, tokens, /*logprobs=*/true);
    const auto stayed = undisturbed_->Append(id, tokens, /*logprobs=*/true);
    ASSERT_TRUE(EndedOk(*moved));
    ASSERT_TRUE(EndedOk(*stayed));
    EXPECT_LE(MaxDifference(moved->AppendLogProbs(), stayed->AppendLogProbs()), tolerance()) << id;
  }
  void Generate(const std::string& id, int64_t count, std::vector<int32_t> input = {}) {
    GenerateRequest request = GreedyRequest(count, std::move(input));
    request.logprobs = 0;
    const auto moved = engine_->Generate(id, request);
    const auto stayed = undisturbed_->Generate(id, request);
    ASSERT_TRUE(EndedOk(*moved));
    ASSERT_TRUE(EndedOk(*stayed));
    ASSERT_EQ(moved->TokenIds(), stayed->TokenIds()) << id;
    for (size_t i = 0; i < moved->tokens.size(); ++i) {
      EXPECT_NEAR(*moved->tokens[i].logprob, *stayed->tokens[i].logprob, tolerance()) << id;
    }
  }
  // Makes all others leave the device.
  void Press() {
    EXPECT_TRUE(EndedOk(*engine_->Generate("", GreedyRequest(8 * 16 - 17, Tokens(1)))));
  }
  // Runs what can be run while moves are held up.
  void RunWithoutMoves(Call* call) {
    while (engine_->loop().RunOnce()) call->Read();
    call->Read();
  }

  TemporaryDirectory dir_;
  Gate gate_;
  CountingStats stats_;
  std::unique_ptr<LoopHarness> engine_, undisturbed_;
};

TEST_P(SessionTiersTest, AnIdleSessionMakesRoomAndComesBack) {
  Create("idle");
  Append("idle", Tokens(50));
  const SessionInfo before = engine_->Info("idle");
  EXPECT_EQ(before.residence, Residence::kDevice);
  Press();
  const SessionInfo parked = engine_->Info("idle");
  EXPECT_EQ(parked.residence, Residence::kHost);
  EXPECT_EQ(parked.device_bytes, 0);
  EXPECT_EQ(parked.host_bytes, before.host_bytes + kImageBytes);
  EXPECT_EQ(load().parked_sessions, 1);
  EXPECT_EQ(load().host_cache_bytes_used, kImageBytes);
  EXPECT_EQ(load().device_bytes_used, 0);
  Generate("idle", 20);
  EXPECT_EQ(ResidenceOf("idle"), Residence::kDevice);
  EXPECT_EQ(load().host_cache_bytes_used, 0);
  EXPECT_EQ(stats_.parked_bytes, stats_.unparked_bytes);
  EXPECT_EQ(stats_.parked_bytes.size(), 1u);
}

TEST_P(SessionTiersTest, EveryKindOfStateGoesOnAsIfItHadStayed) {
  for (const int64_t lag : {0, 3}) {
    for (const size_t tokens : {3, 4, 16, 21, 48}) {
      const std::string id = "s" + std::to_string(lag) + "-" + std::to_string(tokens);
      Create(id, {.max_lag_chunks = lag});
      Append(id, Tokens(tokens));
      Press();
      EXPECT_EQ(ResidenceOf(id), Residence::kHost);
      Generate(id, 7);  // its last token is logged and not computed
      Press();
      EXPECT_EQ(ResidenceOf(id), Residence::kHost);
      Append(id, Tokens(9));
      for (auto* engine : {engine_.get(), undisturbed_.get()}) {
        ASSERT_TRUE(engine->loop().DeleteSession({"test", id}).ok());
      }
    }
  }
}

TEST_P(SessionTiersTest, TheOneNotUsedForLongestLeavesFirst) {
  for (const std::string id : {"first", "second", "third"}) {
    Create(id);
    Append(id, Tokens(16));
    engine_->clock().Advance(absl::Seconds(1));
  }
  Append("first", Tokens(1));
  Create("new");
  Append("new", Tokens(30));
  EXPECT_EQ(ResidenceOf("second"), Residence::kHost);
  EXPECT_EQ(ResidenceOf("first"), Residence::kDevice);
  EXPECT_EQ(ResidenceOf("third"), Residence::kDevice);
}

TEST_P(SessionTiersTest, AnAppendWhoseClientIsSilentMakesRoomAndGoesOn) {
  Create("reading");
  const auto reading = engine_->StartAppendStream("reading", {});
  reading->channel->PushInput({.ids = Tokens(60)});
  engine_->RunAll({reading.get()});
  for (const bool ends : {false, true}) {
    Press();
    EXPECT_EQ(ResidenceOf("reading"), Residence::kHost);
    EXPECT_EQ(engine_->loop().requests_in_flight(), 1);
    if (ends) {
      reading->channel->CloseInput();
    } else {
      reading->channel->PushInput({.ids = Tokens(30, 2)});
    }
    engine_->RunAll({reading.get()});
    EXPECT_EQ(ResidenceOf("reading"), ends ? Residence::kHost : Residence::kDevice);
  }
  EXPECT_TRUE(EndedOk(*reading));
  EXPECT_TRUE(EndedOk(*undisturbed_->Append("reading", Tokens(60))));
  EXPECT_TRUE(EndedOk(*undisturbed_->Append("reading", Tokens(30, 2))));
  Generate("reading", 10);
}

TEST_P(SessionTiersTest, WhenTheHostIsFullSessionsStayAndRequestsAreToldSo) {
  engine_ = MakeEngine(Memory(8), kImageBytes);
  for (const std::string id : {"a", "b", "c"}) engine_->Create(id);
  engine_->Append("a", Tokens(60));
  EXPECT_TRUE(EndedOk(*engine_->Append("b", Tokens(90))));
  EXPECT_EQ(ResidenceOf("a"), Residence::kHost);
  EXPECT_TRUE(EndedWith(*engine_->Append("c", Tokens(90)), absl::StatusCode::kResourceExhausted,
                        ErrorReason::kOutOfMemory));
  EXPECT_EQ(ResidenceOf("b"), Residence::kDevice);
  ASSERT_TRUE(engine_->loop().DeleteSession({"test", "a"}).ok());
  EXPECT_TRUE(EndedOk(*engine_->Append("c", Tokens(50))));
  EXPECT_EQ(ResidenceOf("b"), Residence::kHost);
}

TEST_P(SessionTiersTest, SessionsThatDoNotFitTogetherTakeTurns) {
  for (const std::string id : {"a", "b"}) {
    Create(id);
    Append(id, Tokens(70));
  }
  for (int round = 0; round < 4; ++round) {
    for (const std::string id : {"a", "b"}) Generate(id, 5);
  }
  const auto a = engine_->StartGenerate("a", GreedyRequest(5));
  const auto b = engine_->StartGenerate("b", GreedyRequest(5));
  engine_->RunAll({a.get(), b.get()});
  EXPECT_TRUE(EndedOk(*a));
  EXPECT_TRUE(EndedOk(*b));
}

TEST_P(SessionTiersTest, OthersGoOnWhileAStateMoves) {
  Create("parked");
  Append("parked", Tokens(20));
  Press();
  gate_.Close();
  const auto waiting = engine_->StartGenerate("parked", GreedyRequest(5));
  engine_->Create("other");
  const auto other = engine_->StartGenerate("other", GreedyRequest(30, Tokens(3)));
  RunWithoutMoves(other.get());
  EXPECT_TRUE(EndedOk(*other));
  waiting->Read();
  EXPECT_EQ(waiting->ends, 0);
  EXPECT_EQ(ResidenceOf("parked"), Residence::kRestoring);
  gate_.Open();
  engine_->RunAll({waiting.get()});
  EXPECT_TRUE(EndedOk(*waiting));
}

TEST_P(SessionTiersTest, ASessionThatIsWantedWhileItLeavesStays) {
  Create("leaving");
  Append("leaving", Tokens(60));
  gate_.Close();
  const auto pressing = engine_->StartGenerate("", GreedyRequest(100, Tokens(1)));
  RunWithoutMoves(pressing.get());
  ASSERT_EQ(engine_->loop().moves_in_flight(), 1);
  const auto wanted = engine_->StartGenerate("leaving", GreedyRequest(5));
  RunWithoutMoves(wanted.get());
  EXPECT_TRUE(wanted->tokens.empty()) << "it is leased to the move";
  gate_.Open();
  engine_->RunAll({wanted.get(), pressing.get()});
  EXPECT_TRUE(EndedOk(*wanted));
  EXPECT_TRUE(EndedOk(*pressing));
  ASSERT_TRUE(EndedOk(*undisturbed_->Generate("leaving", GreedyRequest(5))));
  Generate("leaving", 9);
}

TEST_P(SessionTiersTest, OfRequestsThatAllWaitForMemoryTheLaterLeaveItToTheFirst) {
  for (const std::string id : {"a", "b"}) {
    Create(id);
    Append(id, Tokens(55));
  }
  // Either has its session's memory and needs more than the other's leaves.
  const auto a = engine_->StartGenerate("a", GreedyRequest(50));
  const auto b = engine_->StartGenerate("b", GreedyRequest(50));
  engine_->RunAll({a.get(), b.get()});
  EXPECT_TRUE(EndedOk(*a));
  EXPECT_TRUE(EndedOk(*b));
  for (const std::string id : {"a", "b"}) undisturbed_->Generate(id, GreedyRequest(50));
  for (const std::string id : {"a", "b"}) Generate(id, 3);
}

TEST_P(SessionTiersTest, ASessionThatIsDeletedWhileItMovesIsFreedAfterwards) {
  Create("s");
  Append("s", Tokens(60));
  gate_.Close();
  const auto pressing = engine_->StartGenerate("", GreedyRequest(100, Tokens(1)));
  RunWithoutMoves(pressing.get());
  ASSERT_TRUE(engine_->loop().DeleteSession({"test", "s"}).ok());
  EXPECT_GT(load().device_bytes_used, 0);
  gate_.Open();
  engine_->RunAll({pressing.get()});
  EXPECT_TRUE(EndedOk(*pressing));
  EXPECT_EQ(load().device_bytes_used, 0);
  EXPECT_EQ(load().host_cache_bytes_used, 0);
}

TEST_P(SessionTiersTest, UpdatesThatWaitAreParkedAndLearntAfterwards) {
  Create("s");
  const auto append = engine_->StartAppend("s", Tokens(4));
  for (append->Read(); append->ends == 0; append->Read()) engine_->loop().RunOnce();
  undisturbed_->Append("s", Tokens(4));
  const auto pressing = engine_->StartGenerate("", GreedyRequest(8 * 16 - 17, Tokens(1)));
  engine_->RunAll({pressing.get()});
  EXPECT_EQ(ResidenceOf("s"), Residence::kHost);
  engine_->Generate("s", GreedyRequest(1, Tokens(3)));
  undisturbed_->Generate("s", GreedyRequest(1, Tokens(3)));
  EXPECT_LE(RelativeDifference(engine_->Delta("s", 0), undisturbed_->Delta("s", 0)), tolerance());
  EXPECT_FALSE(engine_->Delta("s", 0).empty());
}

// Random requests, deletions and pressure: every session is as if it had been alone, and memory
// comes to nothing in the end.
TEST_P(SessionTiersTest, WhateverMovesSessionsAreTheSame) {
  for (uint32_t seed = 1; seed <= 6; ++seed) {
    std::mt19937 generator(seed);
    const auto random = [&generator] { return static_cast<uint32_t>(generator()); };
    engine_ = MakeEngine(Memory(8), 8 * kImageBytes);
    undisturbed_ = MakeEngine(1 << 20, 0);
    std::vector<std::string> ids;
    for (int event = 0; event < 60; ++event) {
      const uint32_t kind = random() % 8;
      if (ids.size() < 3 || (kind == 0 && ids.size() < 7)) {
        ids.push_back(std::to_string(event));
        Create(ids.back(), {.clip_norm = 0.01F});
        Append(ids.back(), Tokens(1 + random() % 30, random()));
        continue;
      }
      const size_t at = random() % ids.size();
      if (kind == 1 || engine_->Info(ids[at]).position > 80) {
        for (auto* engine : {engine_.get(), undisturbed_.get()}) {
          ASSERT_TRUE(engine->loop().DeleteSession({"test", ids[at]}).ok());
        }
        ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(at));
      } else if (kind < 5) {
        Append(ids[at], Tokens(1 + random() % 12, random()));
      } else {
        Generate(ids[at], 1 + random() % 12);
      }
    }
    for (const std::string& id : ids) ASSERT_TRUE(engine_->loop().DeleteSession({"test", id}).ok());
    engine_->RunAll({});
    EXPECT_EQ(load().device_bytes_used, 0);
    EXPECT_EQ(load().device_bytes_reserved, 0);
    EXPECT_EQ(load().host_cache_bytes_used, 0);
  }
  EXPECT_GT(stats_.unparked_bytes.size(), 50u);
}

INSTANTIATE_TEST_SUITE_P(Backends, SessionTiersTest,
                         testing::Values(BackendKind::kCpuFloat32, BackendKind::kCudaFloat32),
                         [](const auto& param) { return NameOf(param.param); });

}  // namespace
}  // namespace mneme
