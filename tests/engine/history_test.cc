// Invariant: a fork goes on as its parent would have, and a session that was rolled back as if what
// came behind had never been; neither leaves a trace in the other (DESIGN §2.2, §2.6, §2.7).

#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/forwarding_backend.h"
#include "tests/engine/loading/tiny_model.h"
#include "tests/engine/loop_harness.h"

namespace mneme {
namespace {

// Chunks of 4; a page of 16 positions takes 1,024 bytes.
constexpr int64_t kPageBytes = 1024;

class HistoryTest : public testing::TestWithParam<BackendKind> {
 protected:
  void SetUp() override {
    MNEME_SKIP_WITHOUT_BACKEND(GetParam());
    TinyModel().Write(dir_.path());
    engine_ = std::make_unique<LoopHarness>(dir_.path(), Options(1 << 20, 0));
  }

  // Memory for so many pages, and for what a ΔW takes more on a GPU.
  static int64_t Memory(int64_t pages) {
    return pages * kPageBytes + (IsCuda(GetParam()) ? 384 : 0);
  }
  static HarnessOptions Options(int64_t cache_bytes, int64_t host_cache_bytes) {
    HarnessOptions options;
    options.engine.max_step_tokens = 16;
    options.engine.cache_bytes = cache_bytes;
    options.engine.host_cache_bytes = host_cache_bytes;
    options.backend = GetParam();
    options.wrap_backend = [](std::unique_ptr<Backend> inner) {
      return std::make_unique<UndividedDevice>(std::move(inner));
    };
    return options;
  }
  static std::vector<int32_t> Tokens(size_t count, uint32_t seed = 1) {
    return RandomTokens(count, seed, 16);
  }
  EngineLoop& loop() { return engine_->loop(); }
  absl::StatusOr<SessionInfo> Fork(const std::string& id, const std::string& new_id,
                                   const HistoryPoint& at = {}) {
    return loop().ForkSession({"test", id}, new_id, at);
  }
  absl::StatusOr<SessionInfo> Rollback(const std::string& id, int64_t position) {
    return loop().RollbackSession({"test", id}, position);
  }
  void MustFork(const std::string& id, const std::string& new_id, const HistoryPoint& at = {}) {
    const auto info = Fork(id, new_id, at);
    ASSERT_TRUE(info.ok()) << info.status();
    EXPECT_EQ(info->key.id, new_id);
  }
  std::vector<int32_t> LogOf(const std::string& id) {
    return (*loop().FindSession({"test", id}))->log();
  }
  // Generates in both: the same tokens, as probable up to `tolerance`. On a GPU a product's sums
  // may come in another order in the next engine.
  void ExpectSame(const std::string& id, const std::string& other, double tolerance = 0) {
    GenerateRequest request = GreedyRequest(9);
    request.logprobs = 0;
    const auto a = engine_->Generate(id, request);
    const auto b = engine_->Generate(other, request);
    ASSERT_TRUE(EndedOk(*a)) << id;
    ASSERT_TRUE(EndedOk(*b)) << other;
    ASSERT_EQ(a->TokenIds(), b->TokenIds()) << id << " " << other;
    for (size_t i = 0; i < a->tokens.size(); ++i) {
      EXPECT_NEAR(*a->tokens[i].logprob, *b->tokens[i].logprob,
                  IsCuda(GetParam()) ? 1e-4 : tolerance)
          << id << " " << i;
    }
  }
  void ExpectNothingLeft() {
    for (const Session* session : AllSessions()) {
      ASSERT_TRUE(loop().DeleteSession(SessionKey(session->key())).ok());
    }
    engine_->RunAll({});
    EXPECT_EQ(loop().load().device_bytes_used, 0);
    EXPECT_EQ(loop().load().device_bytes_reserved, 0);
    EXPECT_EQ(loop().load().host_cache_bytes_used, 0);
  }
  std::vector<const Session*> AllSessions() {
    std::vector<const Session*> sessions;
    for (const SessionInfo& info : loop().ListSessions("test", "", 1000).sessions) {
      sessions.push_back(*loop().FindSession(info.key));
    }
    return sessions;
  }

  TemporaryDirectory dir_;
  std::unique_ptr<LoopHarness> engine_;
};

TEST_P(HistoryTest, AForkGoesOnAsItsParent) {
  for (const int64_t lag : {0, 3}) {
    for (const size_t tokens : {0, 3, 4, 16, 21, 48}) {
      const std::string id = "s" + std::to_string(lag) + "-" + std::to_string(tokens);
      engine_->Create(id, {.max_lag_chunks = lag});
      if (tokens > 0) engine_->Append(id, Tokens(tokens));
      engine_->Generate(id, GreedyRequest(5, Tokens(2)));  // the last token is not computed
      MustFork(id, id + "-fork");
      EXPECT_EQ(LogOf(id + "-fork"), LogOf(id));
      EXPECT_EQ(engine_->Info(id + "-fork").version, engine_->Info(id).version);
      EXPECT_EQ(engine_->Info(id + "-fork").device_bytes, engine_->Info(id).device_bytes);
      ExpectSame(id, id + "-fork");
    }
  }
  ExpectNothingLeft();
}

TEST_P(HistoryTest, ParentAndForkLeaveNoTraceInEachOther) {
  for (const std::string id : {"parent", "alone"}) {
    engine_->Create(id);
    engine_->Append(id, Tokens(22));
  }
  MustFork("parent", "child");
  engine_->Append("child", Tokens(30, 2));
  MustFork("child", "grandchild");
  engine_->Append("grandchild", Tokens(3, 3));
  ExpectSame("parent", "alone");
  ASSERT_TRUE(loop().DeleteSession({"test", "parent"}).ok());
  engine_->Append("alone", Tokens(60, 9));  // writes to whatever was given back
  engine_->Create("like-child");
  engine_->Append("like-child", LogOf("child"));
  ExpectSame("child", "like-child", 1e-4);
  engine_->Create("like-grandchild");
  engine_->Append("like-grandchild", LogOf("grandchild"));
  ExpectSame("grandchild", "like-grandchild", 1e-4);
  ExpectNothingLeft();
}

TEST_P(HistoryTest, AForkMayBeginAtAnEarlierPosition) {
  engine_->Create("s", {.clip_norm = 0.5F});
  engine_->Append("s", Tokens(19));
  engine_->SetControls("s", {.freeze = true});
  engine_->Append("s", Tokens(20, 2));
  for (const int64_t position : {0, 4, 7, 19, 30}) {
    const std::string id = "at-" + std::to_string(position);
    MustFork("s", id, position);
    const std::vector<int32_t> log = LogOf("s");
    EXPECT_EQ(LogOf(id), std::vector<int32_t>(log.begin(), log.begin() + position));
    engine_->Create(id + "-alone", {.clip_norm = 0.5F});
    const auto before = static_cast<std::ptrdiff_t>(std::min<int64_t>(position, 19));
    if (before > 0) engine_->Append(id + "-alone", {log.begin(), log.begin() + before});
    if (position >= 19) engine_->SetControls(id + "-alone", {.freeze = true});
    if (position > 19) engine_->Append(id + "-alone", {log.begin() + 19, log.begin() + position});
    for (const std::string& each : {id, id + "-alone"}) engine_->Append(each, Tokens(6, 4));
    ExpectSame(id, id + "-alone", 1e-4);
  }
  ExpectNothingLeft();
}

TEST_P(HistoryTest, AForkOfARunningSessionIsOfWhatIsLogged) {
  engine_->Create("s");
  const auto running = engine_->StartGenerate("s", GreedyRequest(30, Tokens(5)));
  engine_->StepUntilTokens(running.get(), 9);
  MustFork("s", "fork");
  const auto log = LogOf("fork");
  engine_->RunAll({running.get()});
  EXPECT_TRUE(EndedOk(*running));
  EXPECT_EQ(LogOf("fork"), log);
  const auto rest = static_cast<int64_t>(LogOf("s").size() - log.size());
  EXPECT_TRUE(EndedOk(*engine_->Generate("fork", GreedyRequest(rest))));
  EXPECT_EQ(LogOf("fork"), LogOf("s"));
}

TEST_P(HistoryTest, AForkOfASessionThatIsProbedHasNothingOfTheProbe) {
  engine_->Create("s");
  engine_->Append("s", Tokens(9));
  GenerateRequest probe = GreedyRequest(40, Tokens(3, 5));
  probe.learn = false;
  const auto running = engine_->StartGenerate("s", probe);
  engine_->StepUntilTokens(running.get(), 20);
  MustFork("s", "fork");
  engine_->RunAll({running.get()});
  EXPECT_TRUE(EndedOk(*running));
  ExpectSame("s", "fork");
}

TEST_P(HistoryTest, AForkOfAParkedSessionIsComputedFromItsLog) {
  engine_ =
      std::make_unique<LoopHarness>(dir_.path(), Options(Memory(8), 4 * HostPool::kSlabBytes));
  engine_->Create("s");
  engine_->Append("s", Tokens(30));
  EXPECT_TRUE(EndedOk(*engine_->Generate("", GreedyRequest(110, Tokens(1)))));
  ASSERT_EQ(engine_->Info("s").residence, Residence::kHost);
  MustFork("s", "fork");
  ExpectSame("s", "fork", 1e-4);
  ExpectNothingLeft();
}

TEST_P(HistoryTest, WithoutMemoryForCopiesAForkIsComputedLater) {
  engine_ =
      std::make_unique<LoopHarness>(dir_.path(), Options(Memory(8), 4 * HostPool::kSlabBytes));
  engine_->Create("s");
  engine_->Append("s", Tokens(70));
  MustFork("s", "fork");
  EXPECT_EQ(engine_->Info("fork").device_bytes, 0);
  ExpectSame("s", "fork", 1e-4);
}

TEST_P(HistoryTest, ARollbackBringsTheSessionBack) {
  for (const int64_t position : {0, 4, 13, 21, 22}) {
    const std::string id = "s" + std::to_string(position);
    engine_->Create(id);
    engine_->Append(id, Tokens(22));
    const auto info = Rollback(id, position);
    ASSERT_TRUE(info.ok()) << info.status();
    EXPECT_EQ(info->position, static_cast<uint64_t>(position));
    EXPECT_EQ(info->version, (uint64_t{1} << 32) + static_cast<uint64_t>(position / 4));
    const bool computed = position == 0 || position == 22;
    EXPECT_EQ(info->residence, computed ? Residence::kDevice : Residence::kHost);
    engine_->Create(id + "-alone");
    const std::vector<int32_t> tokens = Tokens(22);
    if (position > 0) {
      engine_->Append(id + "-alone", {tokens.begin(), tokens.begin() + position});
    }
    for (const std::string& each : {id, id + "-alone"}) engine_->Append(each, Tokens(7, 4));
    EXPECT_EQ(engine_->Info(id).residence, Residence::kDevice);
    ExpectSame(id, id + "-alone", 1e-4);
  }
  ExpectNothingLeft();
}

TEST_P(HistoryTest, ARollbackOfTheUncomputedTokenKeepsTheState) {
  engine_->Create("s");
  engine_->Append("s", Tokens(22));
  engine_->Create("alone");
  engine_->Append("alone", Tokens(22));
  engine_->Generate("s", GreedyRequest(1));
  const int64_t bytes = engine_->Info("s").device_bytes;
  ASSERT_TRUE(Rollback("s", 22).ok());
  EXPECT_EQ(engine_->Info("s").device_bytes, bytes);
  ExpectSame("s", "alone");
}

TEST_P(HistoryTest, ARollbackForgetsTheRequestsThatItUndoes) {
  engine_->Create("s");
  engine_->Append("s", Tokens(10), false, "first");
  engine_->Append("s", Tokens(10, 2), false, "second");
  ASSERT_TRUE(Rollback("s", 10).ok());
  EXPECT_TRUE(EndedOk(*engine_->Append("s", Tokens(10), false, "first")));
  EXPECT_EQ(engine_->Info("s").position, 10u) << "it is known still";
  EXPECT_TRUE(EndedOk(*engine_->Append("s", Tokens(5, 3), false, "second")));
  EXPECT_EQ(engine_->Info("s").position, 15u) << "a new request";
  MustFork("s", "fork");
  EXPECT_TRUE(EndedOk(*engine_->Append("fork", Tokens(10), false, "first")));
  EXPECT_EQ(engine_->Info("fork").position, 25u) << "forks inherit none";
}

TEST_P(HistoryTest, WhatCannotBeIsRefused) {
  engine_->Create("s");
  engine_->Append("s", Tokens(10));
  EXPECT_TRUE(absl::IsNotFound(Fork("none", "a").status()));
  EXPECT_TRUE(absl::IsNotFound(Rollback("none", 0).status()));
  EXPECT_TRUE(absl::IsAlreadyExists(Fork("s", "s").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Fork("s", "a b").status()));
  for (const int64_t position : {int64_t{-1}, int64_t{11}, INT64_MAX, INT64_MIN}) {
    EXPECT_TRUE(absl::IsOutOfRange(Fork("s", "a", position).status()));
    EXPECT_TRUE(absl::IsOutOfRange(Rollback("s", position).status()));
  }
  EXPECT_FALSE(loop().GetSession({"test", "a"}).ok());
  EXPECT_TRUE(absl::IsNotFound(loop().ForkSession({"other", "s"}, "a", {}).status()));
  const auto running = engine_->StartGenerate("s", GreedyRequest(10));
  EXPECT_TRUE(absl::IsAborted(Rollback("s", 5).status()));
  engine_->RunAll({running.get()});
  EXPECT_TRUE(EndedOk(*running));
  EXPECT_TRUE(Rollback("s", 5).ok());
}

// Random requests, forks, rollbacks, deletions, under pressure that parks: every session is what
// its log says, and memory comes to nothing in the end.
TEST_P(HistoryTest, WhateverHappenedASessionIsWhatItsLogSays) {
  for (uint32_t seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 generator(seed);
    const auto below = [&](uint32_t bound) { return static_cast<uint32_t>(generator()) % bound; };
    engine_ = std::make_unique<LoopHarness>(
        dir_.path(), Options(Memory(10 + below(12)), 12 * HostPool::kSlabBytes));
    std::vector<std::string> ids;
    for (int event = 0; event < 80; ++event) {
      const std::string name = std::to_string(event);
      if (ids.empty() || (ids.size() < 4 && below(4) == 0)) {
        engine_->Create(name, {.clip_norm = 0.01F});
        ids.push_back(name);
        continue;
      }
      const size_t at = below(static_cast<uint32_t>(ids.size()));
      const std::string id = ids[at];
      const auto position = static_cast<uint32_t>(engine_->Info(id).position);
      switch (position > 100 ? 5 : below(8)) {
        case 0:
          if (ids.size() >= 8) break;
          MustFork(id, name);
          ids.push_back(name);
          break;
        case 1:
          if (ids.size() >= 8) break;
          MustFork(id, name, below(position + 1));
          ids.push_back(name);
          break;
        case 2:
          ASSERT_TRUE(Rollback(id, below(position + 1)).ok());
          break;
        case 3:
        case 4:
          ASSERT_TRUE(EndedOk(*engine_->Generate(id, GreedyRequest(1 + below(9), Tokens(2)))));
          break;
        case 5:
          ASSERT_TRUE(loop().DeleteSession({"test", id}).ok());
          ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(at));
          break;
        default:
          ASSERT_TRUE(EndedOk(*engine_->Append(id, Tokens(1 + below(20), below(1000)))));
      }
    }
    LoopHarness alone(dir_.path(), Options(1 << 20, 0));
    for (const std::string& id : ids) {
      alone.Create(id, {.clip_norm = 0.01F});
      if (!LogOf(id).empty()) alone.Append(id, LogOf(id));
      const auto mine = engine_->Append(id, Tokens(8), /*logprobs=*/true);
      const auto reference = alone.Append(id, Tokens(8), /*logprobs=*/true);
      ASSERT_TRUE(EndedOk(*mine));
      EXPECT_LT(MaxDifference(mine->AppendLogProbs(), reference->AppendLogProbs()), 1e-3);
    }
    ExpectNothingLeft();
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, HistoryTest,
                         testing::Values(BackendKind::kCpuFloat32, BackendKind::kCudaFloat32),
                         [](const auto& param) { return NameOf(param.param); });

}  // namespace
}  // namespace mneme
