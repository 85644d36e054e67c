// Checkpoints that clients have named: a name stands for a place in its session's history, for as
// long as that is the session's history, and its checkpoint is kept.

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/engine/durability/archive_harness.h"
#include "tests/engine/durability/durable_engine.h"
#include "tests/engine/peek.h"

namespace mneme {
namespace {

using Names = std::map<std::string, int64_t>;

class RestoreStats : public StatsSink {
 public:
  void OnRestoring(int64_t checkpoint_tokens, int64_t /*tokens*/) override {
    restored = checkpoint_tokens;
  }

  int64_t restored = -1;  // by the last restore, from a checkpoint
};

class NamedCheckpointTest : public ::testing::Test {
 protected:
  static constexpr char kModel[] = "tests/golden/qwen3-hidden-target";

  NamedCheckpointTest() {
    durable_->Create("s");
    Read(40, 1);
  }

  static HarnessOptions Options(StatsSink* stats) {
    HarnessOptions options;
    options.stats = stats;
    options.engine.checkpoints = {.every_tokens = 0, .every = absl::InfiniteDuration(), .keep = 1};
    return options;
  }
  void Read(size_t tokens, uint32_t seed) {
    EXPECT_TRUE(EndedOk(*durable_->Append("s", RandomTokens(tokens, seed))));
  }
  absl::StatusOr<CheckpointSummary> Take(const std::string& name) {
    absl::StatusOr<CheckpointSummary> taken = absl::UnknownError("not told");
    loop().CheckpointSession({"test", "s"}, name,
                             [&](absl::StatusOr<CheckpointSummary> s) { taken = s; });
    durable_->RunAll({});
    return taken;
  }
  // As soon as the session's log is there.
  absl::Status Rollback(const HistoryPoint& to) {
    absl::Status told = absl::UnknownError("not told");
    loop().WhenBack({"test", "s"}, HeldCalls::Until::kAtRest, nullptr, [&](absl::Status status) {
      told = status.ok() ? loop().RollbackSession({"test", "s"}, to).status() : status;
    });
    durable_->RunAll({});
    return told;
  }
  Names NamesOf(const std::string& id) { return durable_->Info(id).checkpoints; }
  static size_t FilesOf(const DurableEngine& engine) {
    size_t files = 0;
    for (const auto& entry :
         std::filesystem::recursive_directory_iterator(engine.data_dir() + "/checkpoints")) {
      if (entry.is_regular_file()) ++files;
    }
    return files;
  }
  size_t Files() const { return FilesOf(durable_); }
  EngineLoop& loop() { return durable_->loop(); }

  RestoreStats stats_;
  DurableEngine durable_{kModel, Options(&stats_)};
};

TEST_F(NamedCheckpointTest, ItOutlivesTheNewerOnesAndTheProcess) {
  const auto taken = Take("quiz");
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_EQ(taken->session_position, 40u);
  const auto expected = Peek(*durable_, "s");
  for (const uint32_t seed : {2, 3, 4}) {
    Read(20, seed);
    ASSERT_TRUE(Take("").ok());
  }
  EXPECT_EQ(Files(), 2u) << "the newest, and the one with a name";
  EXPECT_EQ(NamesOf("s"), (Names{{"quiz", 40}}));
  durable_.CutPowerAndStart();
  EXPECT_EQ(NamesOf("s"), (Names{{"quiz", 40}})) << "before anything is loaded";
  ASSERT_TRUE(Rollback("quiz").ok());
  EXPECT_EQ(durable_->Info("s").position, 40u);
  EXPECT_EQ(NamesOf("s"), (Names{{"quiz", 40}})) << "not behind it";
  EXPECT_EQ(Peek(*durable_, "s")->TokenIds(), expected->TokenIds()) << "in a new epoch";
  EXPECT_EQ(stats_.restored, 40) << "from its checkpoint";
}

TEST_F(NamedCheckpointTest, ATokenThatWasDrawnLastBelongsToIt) {
  EXPECT_TRUE(EndedOk(*durable_->Generate("s", GreedyRequest(5))));
  const auto taken = Take("drawn");
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_EQ(taken->position, 44u);
  EXPECT_EQ(taken->session_position, 45u);
  Read(20, 2);
  ASSERT_TRUE(Rollback("drawn").ok());
  EXPECT_EQ(durable_->Info("s").position, 45u);
}

TEST_F(NamedCheckpointTest, AForkIsAsTheSessionWasAndHasNoNames) {
  ASSERT_TRUE(Take("quiz").ok());
  const auto expected = Peek(*durable_, "s");
  Read(30, 2);
  ASSERT_TRUE(loop().ForkSession({"test", "s"}, "fork", "quiz").ok());
  ExpectSame(*Peek(*durable_, "fork"), *expected);
  EXPECT_TRUE(NamesOf("fork").empty());
  EXPECT_EQ(NamesOf("s"), (Names{{"quiz", 40}}));
}

TEST_F(NamedCheckpointTest, TheSecondOfANameReplacesTheFirst) {
  ASSERT_TRUE(Take("quiz").ok());
  Read(20, 2);
  ASSERT_TRUE(Take("quiz").ok());
  EXPECT_EQ(NamesOf("s"), (Names{{"quiz", 60}}));
  EXPECT_EQ(Files(), 1u);
  ASSERT_TRUE(Take("quiz").ok()) << "at the same place";
  EXPECT_EQ(Files(), 1u);
}

TEST_F(NamedCheckpointTest, ARollbackBeforeItTakesTheNameAndTheFile) {
  ASSERT_TRUE(Take("early").ok());
  Read(20, 2);
  ASSERT_TRUE(Take("late").ok());
  Read(20, 3);
  ASSERT_TRUE(Rollback(50).ok());
  EXPECT_EQ(NamesOf("s"), (Names{{"early", 40}}));
  EXPECT_EQ(Files(), 1u);
  const absl::Status gone = Rollback("late");
  EXPECT_TRUE(absl::IsNotFound(gone)) << gone;
  EXPECT_EQ(GetErrorInfo(gone).reason, ErrorReason::kCheckpointNotFound);
  durable_.CutPowerAndStart();
  EXPECT_EQ(NamesOf("s"), (Names{{"early", 40}}));
  EXPECT_TRUE(Rollback("early").ok());
}

TEST_F(NamedCheckpointTest, ARollbackWhileItIsWrittenLeavesNoName) {
  Read(20, 2);
  absl::StatusOr<CheckpointSummary> taken = absl::UnknownError("not told");
  loop().CheckpointSession({"test", "s"}, "late",
                           [&](absl::StatusOr<CheckpointSummary> s) { taken = s; });
  loop().RunOnce();
  EXPECT_TRUE(Rollback(50).ok());
  durable_->RunAll({});
  EXPECT_TRUE(absl::IsAborted(taken.status())) << taken.status();
  EXPECT_TRUE(NamesOf("s").empty());
}

TEST_F(NamedCheckpointTest, ThereAreSoManyAndNoMore) {
  for (size_t i = 0; i < kMaxNamedCheckpoints; ++i) {
    Read(1, 2);
    ASSERT_TRUE(Take(absl::StrCat("n", i)).ok());
  }
  const absl::Status refused = Take("more").status();
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_EQ(GetErrorInfo(refused).reason, ErrorReason::kTooManyCheckpoints);
  EXPECT_NE(refused.message().find("\"n0\""), absl::string_view::npos) << "one to take again";
  EXPECT_TRUE(Take("n0").ok());
  EXPECT_TRUE(Take("").ok());
  EXPECT_TRUE(absl::IsInvalidArgument(Take("a/b").status()));
}

TEST_F(NamedCheckpointTest, DeletionTakesThemAlong) {
  ASSERT_TRUE(Take("quiz").ok());
  ASSERT_TRUE(loop().DeleteSession({"test", "s"}).ok());
  durable_->RunAll({});
  EXPECT_EQ(Files(), 0u);
  durable_->Create("s");
  EXPECT_TRUE(NamesOf("s").empty());
}

TEST_F(NamedCheckpointTest, WhereThereIsTooLittleDiskItStays) {
  HarnessOptions options = Options(&stats_);
  options.engine.disk_cache_bytes = 1;
  DurableEngine small(kModel, options);
  small->Create("s");
  for (const std::string name : {"quiz", ""}) {
    EXPECT_TRUE(EndedOk(*small->Append("s", RandomTokens(20, 1))));
    small->loop().CheckpointSession(
        {"test", "s"}, name, [](const auto& taken) { EXPECT_TRUE(taken.ok()) << taken.status(); });
    small->RunAll({});
  }
  EXPECT_EQ(FilesOf(small), 1u) << "and nobody tries to erase it for ever";
  EXPECT_EQ(small->Info("s").checkpoints, (Names{{"quiz", 20}}));
  EXPECT_GT(small->Info("s").disk_bytes, 0);
}

TEST_F(NamedCheckpointTest, NamesGoWithAnArchive) {
  ASSERT_TRUE(Take("quiz").ok());
  const auto expected = Peek(*durable_, "s");
  Read(20, 2);
  DurableEngine there(kModel, With(std::nullopt));
  const auto imported = Import(*there, "t", Export(*durable_, "s"));
  ASSERT_TRUE(imported.ok()) << imported.status();
  EXPECT_EQ(imported->checkpoints, (Names{{"quiz", 40}}));
  ASSERT_TRUE(there->loop().ForkSession({"test", "t"}, "fork", "quiz").ok());
  ExpectSame(*Peek(*there, "fork"), *expected);
}

}  // namespace
}  // namespace mneme
