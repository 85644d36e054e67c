// Invariant: whatever sessions of either mode do at once, in little memory, bytes reserved ≥ bytes
// held (LoopHarness::Step holds that), every request ends, and nothing is left (DESIGN §2.8, §2.9).

#include <random>

#include "gtest/gtest.h"
#include "tests/engine/loading/tiny_model.h"
#include "tests/engine/loop_harness.h"

namespace mneme {
namespace {

// Chunks of 4 tokens, steps of 16 rows, memory for about two sessions of 100 tokens.
class RandomWork {
 public:
  RandomWork(const std::filesystem::path& model_dir, uint32_t seed)
      : random_(seed),
        engine_(model_dir, {.engine = {.max_step_tokens = 16, .cache_bytes = 20 << 10}}) {}

  void Run() {
    for (int i = 0; i < 150; ++i) {
      DoSomething();
      for (uint32_t steps = Below(4); steps > 0; --steps) engine_.Step();
    }
    std::vector<Call*> calls;
    for (const auto& call : calls_) calls.push_back(call.get());
    engine_.RunAll(calls);
    for (const Call* call : calls) EXPECT_EQ(call->ends, 1);
    for (const std::string& id : sessions_) {
      EXPECT_EQ((*engine_.loop().FindSession({"test", id}))->state().waiting_updates(), 0);
      EXPECT_TRUE(engine_.loop().DeleteSession({"test", id}).ok());
    }
    EXPECT_EQ(engine_.loop().load().device_bytes_used, 0);
    EXPECT_EQ(engine_.loop().load().device_bytes_reserved, 0);
  }

 private:
  uint32_t Below(uint32_t end) { return static_cast<uint32_t>(random_()) % end; }

  LearningControls Controls() {
    LearningControls controls;
    if (Below(3) > 0) controls.max_lag_chunks = Below(5);
    controls.freeze = Below(5) == 0;
    return controls;
  }

  GenerateRequest Generation() {
    GenerateRequest request =
        GreedyRequest(1 + Below(30), RandomTokens(1 + Below(20), Below(99), 16));
    request.learn = Below(3) > 0;
    return request;
  }

  void DoSomething() {
    if (sessions_.size() < 2 || Below(20) == 0) {
      sessions_.push_back("s" + std::to_string(++created_));
      return engine_.Create(sessions_.back(), Controls());
    }
    const size_t pick = Below(static_cast<uint32_t>(sessions_.size()));
    const std::string id = sessions_[pick];
    switch (Below(8)) {
      case 0:
        return engine_.SetControls(id, Controls());
      case 1:
        if (Below(3) > 0) return;
        EXPECT_TRUE(engine_.loop().DeleteSession({"test", id}).ok());
        sessions_.erase(sessions_.begin() + static_cast<std::ptrdiff_t>(pick));
        return;
      case 2:
        if (calls_.empty()) return;
        return calls_[Below(static_cast<uint32_t>(calls_.size()))]->channel->Cancel(
            absl::CancelledError("no longer wanted"));
      case 3:
        calls_.push_back(engine_.StartGenerate("", Generation()));
        return;
      case 4:
      case 5:
        calls_.push_back(engine_.StartGenerate(id, Generation()));
        return;
      default:
        calls_.push_back(engine_.StartAppend(id, RandomTokens(1 + Below(40), Below(99), 16)));
    }
  }

  std::mt19937 random_;
  LoopHarness engine_;
  std::vector<std::string> sessions_;
  std::vector<std::unique_ptr<Call>> calls_;
  int created_ = 0;
};

TEST(UpdateRandomTest, ManyKindsOfWorkEndAndLeaveNothing) {
  const TemporaryDirectory dir;
  TinyModel().Write(dir.path());
  for (uint32_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(seed);
    RandomWork(dir.path(), seed).Run();
  }
}

}  // namespace
}  // namespace mneme
