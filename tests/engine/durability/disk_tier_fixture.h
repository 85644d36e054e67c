#ifndef MNEME_TESTS_ENGINE_DURABILITY_DISK_TIER_FIXTURE_H_
#define MNEME_TESTS_ENGINE_DURABILITY_DISK_TIER_FIXTURE_H_

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/engine/durability/durable_engine.h"
#include "tests/engine/peek.h"

namespace mneme {

class TierStats : public StatsSink {
 public:
  void OnParked(int64_t /*bytes*/, absl::Duration /*time*/) override { ++parked; }
  void OnUnloaded(int64_t device_bytes) override { ++(device_bytes > 0 ? from_device : from_host); }
  void OnCheckpoint(int64_t /*bytes*/, absl::Duration /*time*/) override { ++written; }
  void OnCheckpointFailed(const absl::Status& /*why*/) override { ++failed; }
  void OnCheckpointRefused(const absl::Status& why) override { refused.push_back(why); }
  void OnRestoring(int64_t checkpoint_tokens, int64_t tokens) override {
    restored = checkpoint_tokens;
    of = tokens;
  }

  int parked = 0, from_device = 0, from_host = 0, written = 0, failed = 0;
  std::vector<absl::Status> refused;
  int64_t restored = -1, of = -1;  // of the last restore
};

inline int64_t WholeSlabs(int64_t bytes) {
  return (bytes / HostPool::kSlabBytes + 1) * HostPool::kSlabBytes;
}

// An engine whose device and host hold so many sessions of 100 tokens, on a disk, and one that
// holds all of them in memory.
class TwoEngines {
 public:
  TwoEngines(const std::filesystem::path& model, double on_device, int on_host, TierStats* stats,
             const EngineOptions& more = {})
      : undisturbed_(model) {
    undisturbed_.Create("size");
    EXPECT_TRUE(EndedOk(*undisturbed_.Append("size", RandomTokens(100, 1))));
    const int64_t bytes = undisturbed_.Info("size").device_bytes;
    HarnessOptions options;
    options.stats = stats;
    options.engine = more;
    options.engine.max_step_tokens = 64;
    options.engine.cache_bytes = static_cast<int64_t>(on_device * static_cast<double>(bytes));
    options.engine.host_cache_bytes = on_host * WholeSlabs(bytes);
    options.engine.checkpoints = {.every_tokens = 0, .every = absl::InfiniteDuration(), .keep = 2};
    durable_ = std::make_unique<DurableEngine>(model, options);
  }

  LoopHarness& operator*() { return **durable_; }
  LoopHarness* operator->() { return &**durable_; }
  DurableEngine& durable() { return *durable_; }
  LoopHarness& undisturbed() { return undisturbed_; }

  // In both.
  void Create(const std::string& id, const LearningControls& controls = {}) {
    (*durable_)->Create(id, controls);
    undisturbed_.Create(id, controls);
  }
  void Append(const std::string& id, const std::vector<int32_t>& tokens) {
    Tick();
    EXPECT_TRUE(EndedOk(*(*durable_)->Append(id, tokens))) << id;
    EXPECT_TRUE(EndedOk(*undisturbed_.Append(id, tokens))) << id;
  }
  void Generate(const std::string& id, int64_t count, const std::vector<int32_t>& input = {}) {
    Tick();
    GenerateRequest request = GreedyRequest(count, input);
    request.logprobs = 0;
    const auto actual = (*durable_)->Generate(id, request);
    const auto expected = undisturbed_.Generate(id, request);
    ASSERT_TRUE(EndedOk(*actual)) << id;
    ASSERT_TRUE(EndedOk(*expected)) << id;
    ExpectSame(*actual, *expected);
  }
  void Delete(const std::string& id) {
    EXPECT_TRUE((*durable_)->loop().DeleteSession({"test", id}).ok());
    EXPECT_TRUE(undisturbed_.loop().DeleteSession({"test", id}).ok());
  }
  void ExpectTheSame(const std::string& id) {
    SCOPED_TRACE(id);
    Tick();
    ExpectSame(*Peek(**durable_, id, 12), *Peek(undisturbed_, id, 12));
    EXPECT_EQ((*durable_)->Info(id).version, undisturbed_.Info(id).version);
  }

 private:
  void Tick() { (*durable_)->clock().Advance(absl::Seconds(1)); }

  LoopHarness undisturbed_;
  std::unique_ptr<DurableEngine> durable_;
};

class DiskTierFixture : public ::testing::Test {
 protected:
  // Room for one session and a half.
  void Start(int on_host = 0, const EngineOptions& more = {}) {
    engines_ = std::make_unique<TwoEngines>("tests/golden/qwen3-hidden-target", 1.5, on_host,
                                            &stats_, more);
  }
  TwoEngines& engines() { return *engines_; }
  LoopHarness& engine() { return **engines_; }
  Residence ResidenceOf(const std::string& id) { return engine().Info(id).residence; }
  // A session of 100 tokens; others must leave for it.
  void Make(const std::string& id) {
    engines_->Create(id);
    engines_->Append(id, RandomTokens(100, static_cast<uint32_t>(id.back())));
  }
  // What fails to write checkpoints.
  void FillDisk() {
    engines_->durable().disk().SetHook([](FileOp op, const std::string& path) {
      const bool writes = op != FileOp::kRead && path.find(".checkpoint") != std::string::npos;
      return writes ? rocksdb::IOStatus::NoSpace("no space left") : rocksdb::IOStatus::OK();
    });
  }
  // Steps until a checkpoint is being written, which then waits for Open.
  void HoldWrites() {
    held_ = true;
    engines_->durable().disk().SetHook([this](FileOp op, const std::string& path) {
      if (op == FileOp::kCreate && path.find(".checkpoint") != std::string::npos) {
        writing_ = true;
        writing_.notify_all();
        held_.wait(true);
      }
      return rocksdb::IOStatus::OK();
    });
  }
  void Open() {
    held_ = false;
    held_.notify_all();
  }
  // Runs `call` until the checkpoint of the session that leaves for it is being written.
  void RunUntilWriting() {
    while (engine().Step()) {
    }
    writing_.wait(false);
  }
  void TearDown() override { Open(); }

  TierStats stats_;
  std::atomic<bool> held_ = false, writing_ = false;
  std::unique_ptr<TwoEngines> engines_;
};

}  // namespace mneme

#endif  // MNEME_TESTS_ENGINE_DURABILITY_DISK_TIER_FIXTURE_H_
