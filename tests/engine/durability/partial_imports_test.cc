// Imports that broke off: gone on with, or forgotten after a while, and never too many.

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/engine/durability/archive_harness.h"
#include "tests/engine/durability/durable_engine.h"
#include "tests/engine/peek.h"

namespace mneme {
namespace {

// Imports with a name, of which 500 bytes come and then no more.
class PartialImportsTest : public ::testing::Test {
 protected:
  PartialImportsTest() {
    here_->Create("s");
    EXPECT_TRUE(EndedOk(*here_->Append("s", RandomTokens(70, 1))));
    archive_ = Export(*here_, "s");
  }

  static void BreakOff(LoopHarness& engine, const std::string& name, const std::string& archive) {
    {
      const auto file = BeginImport(engine, "t", {.import_id = name});
      ASSERT_TRUE(file.ok()) << file.status();
      ASSERT_TRUE(Append(**file, 0, archive.substr(0, 500)).ok());
    }
    engine.RunAll({});
    engine.clock().Advance(absl::Seconds(1));
  }
  // How much is kept of the import.
  static uint64_t Kept(LoopHarness& engine, const std::string& name) {
    const absl::Status status =
        BeginImport(engine, "t", {.import_id = name, .offset = UINT64_MAX}).status();
    EXPECT_TRUE(absl::IsOutOfRange(status)) << status;
    EXPECT_EQ(GetErrorInfo(status).reason, ErrorReason::kOffsetMismatch);
    return GetErrorInfo(status).offset.value_or(UINT64_MAX);
  }

  DurableEngine here_{kArchiveModel, With({})};
  std::string archive_;
};

TEST_F(PartialImportsTest, GoOnWhereTheyBrokeOff) {
  BreakOff(*here_, "a", archive_);
  EXPECT_EQ(Kept(*here_, "a"), 500u);
  EXPECT_EQ(Kept(*here_, "b"), 0u);
  const auto file = BeginImport(*here_, "t", {.import_id = "a", .offset = 500});
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE(Append(**file, 500, archive_.substr(500)).ok());
  const auto imported = Await<SessionInfo>(*here_, [&](auto done) {
    here_->loop().ImportSession({"test", "t"}, *file, done);
  });
  ASSERT_TRUE(imported.ok()) << imported.status();
  EXPECT_EQ(imported->position, 70u);
  ExpectSame(*Peek(*here_, "t"), *Peek(*here_, "s"));
  ASSERT_TRUE(here_->loop().DeleteSession({"test", "t"}).ok());
  EXPECT_EQ(Kept(*here_, "a"), 0u) << "it is complete";
}

TEST_F(PartialImportsTest, OthersAreRefused) {
  BreakOff(*here_, "a", archive_);
  const auto begin = [this](const std::string& id, std::optional<uint64_t> hash) {
    return BeginImport(*here_, id, {.import_id = "a", .offset = 500, .hash = hash}).status();
  };
  for (const absl::Status& status : {begin("other", {}), begin("", {}), begin("t", 12345)}) {
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_EQ(GetErrorInfo(status).reason, ErrorReason::kPayloadMismatch);
  }
  EXPECT_TRUE(begin("t", {}).ok());
  const absl::Status foreign =
      Await<std::shared_ptr<ArchiveFile>>(*here_, [&](auto done) {
        here_->loop().BeginImport({"stranger", "t"}, {.import_id = "a", .offset = 500}, done);
      }).status();
  EXPECT_EQ(GetErrorInfo(foreign).offset, 0u) << "another tenant's";
}

TEST_F(PartialImportsTest, AreForgottenAfterAWhile) {
  BreakOff(*here_, "a", archive_);
  here_->clock().Advance(PartialImports::kKeepTime - absl::Seconds(2));
  EXPECT_EQ(Kept(*here_, "a"), 500u);
  EXPECT_LE(here_->loop().NextWake(), here_->clock().Now() + PartialImports::kKeepTime)
      << "asking is using";
  here_->clock().Advance(PartialImports::kKeepTime);
  here_->RunAll({});
  EXPECT_EQ(Kept(*here_, "a"), 0u);
  const auto later = BeginImport(*here_, "t");
  EXPECT_EQ(SpooledFiles(here_), 1) << "that of the last one alone";
}

TEST_F(PartialImportsTest, OneThatIsUsedIsKept) {
  const auto file = BeginImport(*here_, "t", {.import_id = "a"});
  ASSERT_TRUE(Append(**file, 0, archive_.substr(0, 500)).ok());
  here_->clock().Advance(2 * PartialImports::kKeepTime);
  EXPECT_EQ(Kept(*here_, "a"), 500u);
  EXPECT_TRUE(Append(**file, 500, archive_.substr(500)).ok());
}

TEST_F(PartialImportsTest, AreBoundedInNumberAndLeaveRoomForOthers) {
  const std::vector<std::string> names = {"a", "b", "c", "d", "e", "f"};
  for (const std::string& name : names) BreakOff(*here_, name, archive_);
  for (size_t i = 0; i < names.size(); ++i) {
    const bool is_kept = i + PartialImports::kMaxLeft >= names.size();
    EXPECT_EQ(Kept(*here_, names[i]), is_kept ? 500u : 0u) << names[i];
  }
  std::vector<absl::StatusOr<std::shared_ptr<ArchiveFile>>> files;
  for (int i = 0; i < SessionArchives::kMaxArchives; ++i) {
    const bool others = i >= SessionArchives::kMaxArchivesOfTenant;
    files.push_back(BeginImport(*here_, "t", {}, others ? "other" : "test"));
    EXPECT_TRUE(files.back().ok()) << files.back().status();
  }
  EXPECT_EQ(SpooledFiles(here_), SessionArchives::kMaxArchives + PartialImports::kMaxLeft);
}

TEST_F(PartialImportsTest, GoOnOnlyWhereThereIsAPlaceAndAreKeptUntilThen) {
  BreakOff(*here_, "a", archive_);
  std::vector<std::shared_ptr<ArchiveFile>> files;
  for (int i = 0; i < SessionArchives::kMaxArchivesOfTenant; ++i) {
    files.push_back(*BeginImport(*here_, "t"));
  }
  const auto go_on = [this] {
    return BeginImport(*here_, "t", {.import_id = "a", .offset = 500}).status();
  };
  EXPECT_EQ(GetErrorInfo(go_on()).reason, ErrorReason::kQueueFull);
  EXPECT_EQ(Kept(*here_, "a"), 500u) << "asking takes no place";
  files.pop_back();
  EXPECT_TRUE(go_on().ok());
}

TEST_F(PartialImportsTest, AreBoundedInBytes) {
  DurableEngine small(kArchiveModel, With({}, /*max_bytes=*/1200));
  for (const std::string name : {"a", "b", "c"}) BreakOff(*small, name, archive_);
  EXPECT_EQ(Kept(*small, "a"), 0u);
  EXPECT_EQ(Kept(*small, "b"), 500u);
  EXPECT_EQ(Kept(*small, "c"), 500u);
}

TEST_F(PartialImportsTest, ARestartSaysThatNothingIsKept) {
  BreakOff(*here_, "a", archive_);
  here_.Start();
  EXPECT_EQ(Kept(*here_, "a"), 0u);
  EXPECT_EQ(SpooledFiles(here_), 0);
}

TEST_F(PartialImportsTest, WhatIsTooLargeIsNotKept) {
  DurableEngine small(kArchiveModel, With({}, /*max_bytes=*/550));
  {
    const auto file = BeginImport(*small, "t", {.import_id = "a"});
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_TRUE(Append(**file, 0, archive_.substr(0, 500)).ok());
    EXPECT_FALSE(Append(**file, 500, archive_.substr(500)).ok());
  }
  small->RunAll({});
  const auto other = BeginImport(*small, "u");
  EXPECT_EQ(other.status(), absl::OkStatus());
  EXPECT_EQ(SpooledFiles(small), 1) << "that of the last one alone";
  EXPECT_EQ(Kept(*small, "a"), 0u);
}

TEST_F(PartialImportsTest, WhatADiskDoesNotTakeBeginsAnew) {
  BreakOff(*here_, "a", archive_);
  {
    const auto file = BeginImport(*here_, "t", {.import_id = "a", .offset = 500});
    ASSERT_TRUE(file.ok()) << file.status();
    here_.disk().SetHook([](FileOp op, const std::string& path) {
      const bool fails = op == FileOp::kAppend && path.find("/spool/") != std::string::npos;
      return fails ? rocksdb::IOStatus::NoSpace("full") : rocksdb::IOStatus::OK();
    });
    EXPECT_FALSE(Append(**file, 500, std::string(600'000, 'x')).ok());
  }
  here_.disk().SetHook(nullptr);
  here_->RunAll({});
  EXPECT_EQ(Kept(*here_, "a"), 0u);
  EXPECT_TRUE(BeginImport(*here_, "t", {.import_id = "a"}).ok());
}

}  // namespace
}  // namespace mneme
