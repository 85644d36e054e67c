// Checkpoints: what is written beside the steps, and what comes back from it.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/engine/durability/durable_engine.h"
#include "tests/engine/peek.h"
#include "tests/storage/checkpoint_harness.h"

namespace mneme {
namespace {

constexpr char kModel[] = "tests/golden/qwen3-hidden-target";

// What the engine says of checkpoints, and how much it computes.
class CheckpointStats : public StatsSink {
 public:
  void OnStep(int64_t step_rows, absl::Duration /*time*/) override { rows += step_rows; }
  void OnCheckpoint(int64_t /*bytes*/, absl::Duration /*time*/) override { ++written; }
  void OnCheckpointFailed(const absl::Status& why) override { failed.push_back(why); }
  void OnCheckpointRefused(const absl::Status& why) override { refused.push_back(why); }
  void OnRestoring(int64_t checkpoint_tokens, int64_t tokens) override {
    restored = checkpoint_tokens;
    of = tokens;
  }

  int64_t rows = 0;
  int written = 0;
  std::vector<absl::Status> failed, refused;
  int64_t restored = -1, of = -1;  // of the last restore
};

HarnessOptions Options(StatsSink* stats, int64_t every_tokens) {
  HarnessOptions options;
  options.stats = stats;
  options.engine.checkpoints = {
      .every_tokens = every_tokens, .every = absl::InfiniteDuration(), .keep = 2};
  return options;
}

// All checkpoint files, in the order of their names: positions.
std::vector<std::string> FilesOf(const DurableEngine& engine) {
  std::vector<std::string> files;
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(engine.data_dir() + "/checkpoints")) {
    if (entry.is_regular_file()) files.push_back(entry.path().string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

absl::StatusOr<CheckpointSummary> Take(DurableEngine& engine, const std::string& id,
                                       const std::string& name = "") {
  absl::StatusOr<CheckpointSummary> taken = absl::UnknownError("not told");
  engine->loop().CheckpointSession({"test", id}, name,
                                   [&](absl::StatusOr<CheckpointSummary> s) { taken = s; });
  engine->RunAll({});
  return taken;
}

class CheckpointModelTest : public ::testing::TestWithParam<std::tuple<std::string, int>> {
 protected:
  std::filesystem::path model() const {
    return std::filesystem::path("tests/golden") / std::get<0>(GetParam());
  }
  LearningControls controls() const { return {.max_lag_chunks = std::get<1>(GetParam())}; }
};

INSTANTIATE_TEST_SUITE_P(All, CheckpointModelTest,
                         ::testing::Combine(::testing::ValuesIn(GoldenNames()),
                                            ::testing::Values(0, 1, 3)),
                         [](const auto& parameter) {
                           std::string name = absl::StrCat(std::get<0>(parameter.param), "_lag",
                                                           std::get<1>(parameter.param));
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST_P(CheckpointModelTest, ARestartGoesOnFromTheNewestOne) {
  CheckpointStats stats;
  DurableEngine durable(model(), Options(&stats, 0));
  const int64_t chunk = durable->model().config.ttt->chunk;
  std::vector<std::pair<std::string, std::unique_ptr<Call>>> sessions;
  // Around the end of a chunk; then a tail, with a draw.
  for (int64_t length = 2 * chunk - 1; length <= 2 * chunk + 1; ++length) {
    for (const bool has_tail : {false, true}) {
      const std::string id = absl::StrCat("s", length, has_tail ? "-tail" : "");
      durable->Create(id, controls());
      EXPECT_TRUE(EndedOk(*durable->Append(id, RandomTokens(static_cast<size_t>(length), 7))));
      const auto taken = Take(durable, id);
      ASSERT_TRUE(taken.ok()) << taken.status();
      EXPECT_EQ(taken->position, static_cast<uint64_t>(length));
      EXPECT_GT(taken->bytes, 0);
      if (has_tail) {
        durable->SetControls(id, {.max_lag_chunks = controls().max_lag_chunks, .clip_norm = 0.5F});
        const auto more = RandomTokens(static_cast<size_t>(2 * chunk), 8);
        EXPECT_TRUE(EndedOk(*durable->Generate(id, GreedyRequest(3, more))));
      }
      sessions.emplace_back(id, Peek(*durable, id, chunk + 3));
    }
  }
  EXPECT_EQ(stats.written, 6);
  durable.CutPowerAndStart();
  for (const auto& [id, expected] : sessions) {
    SCOPED_TRACE(id);
    const auto position = static_cast<int64_t>(durable->Info(id).position);
    const int64_t before = stats.rows;
    ExpectSame(*Peek(*durable, id, chunk + 3), *expected);
    EXPECT_EQ(stats.of, position);
    EXPECT_GE(stats.restored, 2 * chunk - 1);
    // The tail, and twice what Peek draws.
    EXPECT_LE(stats.rows - before, position - stats.restored + 2 * (chunk + 3));
  }
  EXPECT_TRUE(stats.refused.empty()) << stats.refused[0];
}

class CheckpointTest : public ::testing::Test {
 protected:
  // A session of 100 tokens, with checkpoints at 40 and at 80.
  void MakeSession(const std::string& id, uint32_t seed) {
    durable_->Create(id);
    for (const size_t tokens : {40, 40, 20}) {
      EXPECT_TRUE(EndedOk(*durable_->Append(id, RandomTokens(tokens, ++seed))));
      if (tokens == 40) {
        EXPECT_TRUE(Take(durable_, id).ok());
      }
    }
  }

  CheckpointStats stats_;
  DurableEngine durable_{kModel, Options(&stats_, 0)};
};

TEST_F(CheckpointTest, ThePolicyTakesThemWhileARequestRunsAndDropsOldOnes) {
  DurableEngine durable(kModel, Options(&stats_, 50));
  LoopHarness undisturbed(kModel);
  durable->Create("s");
  undisturbed.Create("s");
  const auto call = durable->StartAppendStream("s", AppendRequest());
  for (const uint32_t piece : {1, 2, 3, 4}) {
    call->channel->PushInput({.ids = RandomTokens(60, piece)});
    durable->RunAll({call.get()});
    EXPECT_EQ(call->ends, 0);
    EXPECT_TRUE(EndedOk(*undisturbed.Append("s", RandomTokens(60, piece))));
  }
  EXPECT_EQ(stats_.written, 4);
  EXPECT_EQ(FilesOf(durable).size(), 2u);
  call->channel->CloseInput();
  durable->RunAll({call.get()});
  EXPECT_TRUE(EndedOk(*call));
  ExpectSame(*Peek(*durable, "s", 20), *Peek(undisturbed, "s", 20));
  durable.Start();
  ExpectSame(*Peek(*durable, "s", 20), *Peek(undisturbed, "s", 20));
  EXPECT_EQ(stats_.restored, 240);
}

TEST_F(CheckpointTest, ThePolicyTakesThemByTime) {
  HarnessOptions options = Options(&stats_, 0);
  options.engine.checkpoints.every = absl::Minutes(10);
  DurableEngine durable(kModel, options);
  durable->Create("s");
  EXPECT_TRUE(EndedOk(*durable->Append("s", RandomTokens(30, 1))));
  EXPECT_EQ(stats_.written, 0);
  EXPECT_EQ(durable->loop().NextWake(), durable->clock().Now() + absl::Minutes(10));
  durable->clock().Advance(absl::Minutes(10));
  durable->RunAll({});
  EXPECT_EQ(stats_.written, 1);
  durable->clock().Advance(absl::Minutes(30));
  durable->RunAll({});
  EXPECT_EQ(stats_.written, 1) << "nothing has changed";
}

TEST_F(CheckpointTest, ADamagedOneIsRefusedAndTheOneBeforeIsTaken) {
  MakeSession("s", 1);
  MakeSession("other", 10);
  const auto expected = Peek(*durable_, "s", 20);
  durable_.Stop();
  const std::vector<std::string> files = FilesOf(durable_);
  ASSERT_EQ(files.size(), 4u);
  std::filesystem::path directory;  // of "s": it has to be found out
  for (const std::string& file : {files[1], files[3]}) {
    const std::string bytes = ReadFile(file);
    WriteFile(file, bytes.substr(0, bytes.size() / 2));
    durable_.Start();
    stats_.refused.clear();
    ExpectSame(*Peek(*durable_, "s", 20), *expected);
    if (!stats_.refused.empty()) directory = std::filesystem::path(file).parent_path();
    durable_.Stop();
    WriteFile(file, bytes);
  }
  ASSERT_FALSE(directory.empty());
  std::vector<std::string> own, others;
  for (const std::string& file : files) {
    (std::filesystem::path(file).parent_path() == directory ? own : others).push_back(file);
  }
  const std::string older = ReadFile(own[0]), newer = ReadFile(own[1]);
  const std::vector<Damage> damages = Damages(newer, ReadFile(others[1]));
  for (size_t i = 0; i < damages.size(); i += 1 + damages.size() / 25) {
    SCOPED_TRACE(damages[i].what);
    WriteFile(own[1], damages[i].bytes);
    stats_.refused.clear();
    durable_.Start();
    ExpectSame(*Peek(*durable_, "s", 20), *expected);
    EXPECT_EQ(stats_.refused.size(), 1u);
    EXPECT_EQ(stats_.restored, 40);
    durable_.Stop();
  }
  // Another session's as a whole.
  WriteFile(own[1], ReadFile(others[1]));
  WriteFile(own[0], ReadFile(others[0]));
  stats_.refused.clear();
  durable_.Start();
  ExpectSame(*Peek(*durable_, "s", 20), *expected);
  EXPECT_EQ(stats_.refused.size(), 2u);
  EXPECT_EQ(stats_.restored, 0) << "the whole log";
}

TEST_F(CheckpointTest, AnotherModelsIsRefused) {
  MakeSession("s", 1);
  durable_.Start("tests/golden/qwen3-window-yarn");  // other weights, the same chunks
  EXPECT_TRUE(EndedOk(*durable_->Generate("s", GreedyRequest(3))));
  EXPECT_EQ(stats_.refused.size(), 2u);
  EXPECT_EQ(stats_.restored, 0);
}

TEST_F(CheckpointTest, ACrashWhileOneIsWrittenLeavesTheOneBefore) {
  MakeSession("s", 1);
  const auto expected = Peek(*durable_, "s", 20);
  for (int operation = 0; operation < 12; ++operation) {
    SCOPED_TRACE(operation);
    durable_.CutPowerAt(operation);
    Take(durable_, "s").IgnoreError();
    durable_.CutPowerAndStart();
    ExpectSame(*Peek(*durable_, "s", 20), *expected);
    EXPECT_GE(stats_.restored, 80);
  }
  EXPECT_TRUE(stats_.refused.empty()) << stats_.refused[0];
}

TEST_F(CheckpointTest, AFullDiskIsToldAndTheNextOneWorks) {
  MakeSession("s", 1);
  durable_.disk().SetHook([](FileOp, const std::string& path) {
    return path.find(".checkpoint") != std::string::npos ? rocksdb::IOStatus::NoSpace("full")
                                                         : rocksdb::IOStatus::OK();
  });
  EXPECT_TRUE(absl::IsUnavailable(Take(durable_, "s").status()));
  EXPECT_EQ(stats_.failed.size(), 1u);
  EXPECT_TRUE(EndedOk(*durable_->Append("s", RandomTokens(5, 9))));
  durable_.disk().SetHook(nullptr);
  EXPECT_TRUE(Take(durable_, "s").ok());
}

TEST_F(CheckpointTest, DeletingTheSessionRemovesThem) {
  MakeSession("s", 1);
  EXPECT_EQ(FilesOf(durable_).size(), 2u);
  // Also one that is under way.
  absl::StatusOr<CheckpointSummary> taken = absl::UnknownError("not told");
  durable_->loop().CheckpointSession({"test", "s"}, "",
                                     [&](absl::StatusOr<CheckpointSummary> s) { taken = s; });
  durable_->loop().RunOnce();
  EXPECT_TRUE(durable_->loop().DeleteSession({"test", "s"}).ok());
  durable_->RunAll({});
  EXPECT_FALSE(absl::IsUnknown(taken.status())) << "it was told";
  EXPECT_TRUE(FilesOf(durable_).empty());
}

TEST_F(CheckpointTest, ARollbackGoesOnFromOneBeforeItsPosition) {
  MakeSession("s", 1);
  LoopHarness undisturbed(kModel);
  undisturbed.Create("s");
  EXPECT_TRUE(EndedOk(*undisturbed.Append("s", RandomTokens(40, 2))));
  EXPECT_TRUE(EndedOk(*undisturbed.Append("s", {RandomTokens(40, 3)[0], RandomTokens(40, 3)[1]})));
  ASSERT_TRUE(durable_->loop().RollbackSession({"test", "s"}, 42).ok());
  const auto actual = Peek(*durable_, "s", 20), expected = Peek(undisturbed, "s", 20);
  EXPECT_EQ(actual->TokenIds(), expected->TokenIds());
  EXPECT_EQ(stats_.restored, 40);
  // What was rolled back is dropped when the next one is written.
  EXPECT_TRUE(EndedOk(*durable_->Append("s", RandomTokens(3, 5))));
  EXPECT_TRUE(Take(durable_, "s").ok());
  EXPECT_EQ(FilesOf(durable_).size(), 2u);
  const auto after = Peek(*durable_, "s", 20);
  durable_.Start();
  ExpectSame(*Peek(*durable_, "s", 20), *after);
  EXPECT_EQ(stats_.restored, 45);
}

TEST_F(CheckpointTest, AForkAtAnEarlierPositionGoesOnFromOneOfItsParents) {
  MakeSession("s", 1);
  LoopHarness undisturbed(kModel);
  undisturbed.Create("fork");
  std::vector<int32_t> tokens = RandomTokens(40, 2);
  const std::vector<int32_t> more = RandomTokens(40, 3);
  tokens.insert(tokens.end(), more.begin(), more.begin() + 10);
  EXPECT_TRUE(EndedOk(*undisturbed.Append("fork", tokens)));
  ASSERT_TRUE(durable_->loop().ForkSession({"test", "s"}, "fork", 50).ok());
  ASSERT_TRUE(durable_->loop().ForkSession({"test", "s"}, "late", 50).ok());
  const auto expected = Peek(undisturbed, "fork", 20);
  EXPECT_EQ(Peek(*durable_, "fork", 20)->TokenIds(), expected->TokenIds());
  EXPECT_EQ(stats_.restored, 40);
  // The parent has another past by now.
  ASSERT_TRUE(durable_->loop().RollbackSession({"test", "s"}, 0).ok());
  EXPECT_TRUE(EndedOk(*durable_->Append("s", RandomTokens(39, 9))));
  EXPECT_TRUE(Take(durable_, "s").ok());
  EXPECT_EQ(Peek(*durable_, "late", 20)->TokenIds(), expected->TokenIds());
  EXPECT_EQ(stats_.restored, 0);
}

TEST_F(CheckpointTest, WithoutKvTheLogIsReplayed) {
  HarnessOptions options = Options(&stats_, 0);
  options.engine.checkpoint_kv = false;
  DurableEngine durable(kModel, options);
  durable->Create("s");
  EXPECT_TRUE(EndedOk(*durable->Append("s", RandomTokens(90, 1))));
  const auto with = Take(durable_, "none");
  EXPECT_TRUE(absl::IsNotFound(with.status()));
  EXPECT_TRUE(Take(durable, "s").ok());
  const auto expected = Peek(*durable, "s", 20);
  durable.Start();
  ExpectSame(*Peek(*durable, "s", 20), *expected);
  EXPECT_EQ(stats_.restored, 0);
  EXPECT_TRUE(stats_.refused.empty());
}

TEST_F(CheckpointTest, ASessionThatIsNotKeptHasNone) {
  LoopHarness in_memory(kModel);
  in_memory.Create("s");
  absl::Status status;
  in_memory.loop().CheckpointSession(
      {"test", "s"}, "", [&](absl::StatusOr<CheckpointSummary> s) { status = s.status(); });
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
}

// More sessions come back than the device holds at once.
TEST_F(CheckpointTest, RestoredStatesWaitForMemory) {
  HarnessOptions options = Options(&stats_, 0);
  options.engine.host_cache_bytes = 64 << 20;
  MakeSession("s", 1);
  options.engine.cache_bytes = 3 * durable_->Info("s").device_bytes;
  DurableEngine durable(kModel, options);
  std::vector<std::unique_ptr<Call>> expected;
  for (int i = 0; i < 8; ++i) {
    const std::string id = absl::StrCat("s", i);
    durable->Create(id);
    EXPECT_TRUE(EndedOk(*durable->Append(id, RandomTokens(100, static_cast<uint32_t>(i)))));
    EXPECT_TRUE(Take(durable, id).ok());
    expected.push_back(Peek(*durable, id, 10));
  }
  durable.Start();
  std::vector<std::unique_ptr<Call>> calls;
  std::vector<Call*> all;
  for (int i = 0; i < 8; ++i) {
    GenerateRequest request = GreedyRequest(10);
    request.learn = false;
    calls.push_back(durable->StartGenerate(absl::StrCat("s", i), request));
    all.push_back(calls.back().get());
  }
  durable->RunAll(all);
  for (size_t i = 0; i < calls.size(); ++i) {
    ASSERT_TRUE(EndedOk(*calls[i]));
    EXPECT_EQ(calls[i]->TokenIds(), expected[i]->TokenIds());
  }
  EXPECT_EQ(durable->loop().load().device_bytes_reserved, durable->loop().load().device_bytes_used);
}

}  // namespace
}  // namespace mneme
