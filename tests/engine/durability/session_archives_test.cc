// A session that is exported and imported elsewhere goes on like the original; what is no whole
// archive leaves nothing; a deleted session leaves nothing either.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "storage/archive.h"
#include "storage/checkpoint_files.h"
#include "tests/engine/durability/archive_harness.h"
#include "tests/engine/durability/durable_engine.h"
#include "tests/engine/peek.h"
#include "tests/storage/checkpoint_harness.h"
#include "tests/storage/store_harness.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;

// Model, chunks that may wait.
class ImportedSessionTest : public ::testing::TestWithParam<std::tuple<std::string, int>> {};

INSTANTIATE_TEST_SUITE_P(All, ImportedSessionTest,
                         ::testing::Combine(::testing::ValuesIn(GoldenNames()),
                                            ::testing::Values(0, 3)),
                         [](const auto& parameter) {
                           std::string name = absl::StrCat(std::get<0>(parameter.param), "_lag",
                                                           std::get<1>(parameter.param));
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST_P(ImportedSessionTest, GoesOnLikeTheOriginal) {
  const auto& [name, lag] = GetParam();
  const std::filesystem::path model = std::filesystem::path("tests/golden") / name;
  for (const size_t tokens : {size_t{64}, size_t{77}}) {  // ends of a chunk, and within one
    SCOPED_TRACE(absl::StrCat(tokens, " tokens"));
    DurableEngine here(model);
    DurableEngine there(model);
    here->Create("s", {.max_lag_chunks = lag});
    EXPECT_TRUE(EndedOk(*here->Append("s", RandomTokens(tokens, 1), false, "r")));
    here->SetControls("s", {.max_lag_chunks = lag, .clip_norm = 0.5F});
    EXPECT_TRUE(EndedOk(*here->Generate("s", GreedyRequest(16))));
    ASSERT_TRUE(here->loop().RollbackSession({"test", "s"}, static_cast<int64_t>(tokens) + 9).ok());

    const absl::StatusOr<SessionInfo> info = Import(*there, "t", Export(*here, "s"));
    ASSERT_TRUE(info.ok()) << info.status();
    const SessionInfo original = here->Info("s");
    EXPECT_EQ(info->position, original.position);
    EXPECT_EQ(info->version, original.version);
    EXPECT_EQ(info->options.controls, original.options.controls);
    if (lag > 0) there.Start();  // it has also reached the disk
    ExpectSame(*Peek(*there, "t"), *Peek(*here, "s"));
    const auto next = RandomTokens(40, 2);
    EXPECT_LT(MaxDifference(there->Append("t", next, true)->AppendLogProbs(),
                            here->Append("s", next, true)->AppendLogProbs()),
              kPeekTolerance);
    ExpectSame(*Peek(*there, "t"), *Peek(*here, "s"));
    // A retry of what the original has read reads nothing.
    EXPECT_TRUE(EndedOk(*there->Append("t", RandomTokens(tokens, 1), false, "r")));
    EXPECT_EQ(there->Info("t").position, here->Info("s").position);
  }
}

class SessionArchivesTest : public ::testing::Test {
 protected:
  SessionArchivesTest() {
    here_->Create("s");
    EXPECT_TRUE(EndedOk(*here_->Append("s", RandomTokens(70, 1))));
  }

  // Puts a checkpoint of session "s" into the directory; what it holds of the state is opaque here.
  void MakeCheckpoint() {
    here_.Stop();
    {
      auto opened = SessionStore::Open({.data_dir = here_.data_dir()});
      ASSERT_TRUE(opened.ok());
      const StoreId id = opened->listing.sessions.at(0).id;
      const SessionState state = *opened->store->Load(id);
      auto writer =
          CheckpointFiles(*opened->store)
              .Create(id, MakeCheckpointInfo(state, 64, TestFingerprint(here_.model_dir()), true));
      ASSERT_TRUE(writer.ok()) << writer.status();
      ASSERT_TRUE((*writer)->sections().Write(SectionKind::kState, 0, std::string(999, 's')).ok());
      ASSERT_TRUE((*writer)->Commit().ok());
    }
    here_.Start();
  }

  // Checkpoints that a stopped engine's sessions have.
  static size_t Checkpoints(DurableEngine& engine) {
    engine.Stop();
    auto opened = SessionStore::Open({.data_dir = engine.data_dir()});
    size_t count = 0;
    for (const ListedSession& session : opened->listing.sessions) {
      count += CheckpointFiles(*opened->store).List(session.id)->size();
    }
    return count;
  }

  const SecretKey key_ = SecretKey::Random();
  DurableEngine here_{kArchiveModel, With(key_)};
};

TEST_F(SessionArchivesTest, TheSameSessionGivesTheSameBytes) {
  const absl::StatusOr<SessionArchive> archive = StartExport(*here_, "s");
  ASSERT_TRUE(archive.ok());
  const std::string bytes = BytesOf(*archive->file);
  here_.Start();
  const absl::StatusOr<SessionArchive> again = StartExport(*here_, "s");
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->id, archive->id);
  EXPECT_EQ(BytesOf(*again->file, 333), bytes.substr(333));
  EXPECT_EQ(BytesOf(*again->file, bytes.size()), "");
  here_->Append("s", {1});
  const absl::StatusOr<SessionArchive> later = StartExport(*here_, "s");
  ASSERT_TRUE(later.ok());
  EXPECT_NE(later->id, archive->id);
}

TEST_F(SessionArchivesTest, StateIsTakenFromServersThatShareTheKey) {
  const std::string without = Export(*here_, "s");
  MakeCheckpoint();
  const std::string archive = Export(*here_, "s");
  EXPECT_GT(archive.size(), without.size() + 999);
  DurableEngine friendly(kArchiveModel, With(key_));
  DurableEngine stranger(kArchiveModel, With(SecretKey::Random()));
  DurableEngine keyless(kArchiveModel, With({}));
  for (DurableEngine* engine : {&friendly, &stranger, &keyless}) {
    ASSERT_TRUE(Import(**engine, "t", archive).ok());
    EXPECT_EQ((*engine)->Info("t").position, 70);
    EXPECT_EQ(Checkpoints(*engine), engine == &friendly ? 1 : 0);
  }
}

TEST_F(SessionArchivesTest, WhatIsDamagedIsRefusedAndTheNextRequestWorks) {
  MakeCheckpoint();
  const std::string archive = Export(*here_, "s");
  here_->Append("s", {1});
  const std::string other = Export(*here_, "s");
  DurableEngine there(kArchiveModel, With(key_));
  for (const Damage& damage : Damages(archive, other)) {
    // Metadata and log are anybody's to write.
    if (damage.what.starts_with("metadata[0] of") || damage.what.starts_with("log[0] of")) continue;
    const absl::Status status = Import(*there, "t", damage.bytes).status();
    EXPECT_TRUE(absl::IsDataLoss(status) || absl::IsFailedPrecondition(status))
        << damage.what << ": " << status;
    EXPECT_FALSE(there->loop().FindSession({"test", "t"}).ok()) << damage.what;
  }
  EXPECT_TRUE(absl::IsDataLoss(Import(*there, "t", "").status()));
  ASSERT_TRUE(Import(*there, "t", archive).ok());
  EXPECT_TRUE(EndedOk(*there->Append("t", {1})));
}

// Archives that are whole, but hold what no session can.
TEST_F(SessionArchivesTest, TheLogIsValidatedLikeARequest) {
  const MemoryFile file(Export(*here_, "s"));
  const absl::StatusOr<ArchiveReader> reader = ArchiveReader::Open("archive", file);
  ASSERT_TRUE(reader.ok());
  const auto refused = [&](auto change) {
    SessionMetadata metadata = reader->metadata();
    SessionState state = reader->state();
    change(metadata, state);
    MemoryFile out;
    EXPECT_TRUE(ArchiveExport(metadata, state, nullptr, {}).WriteTo(out, 0).ok());
    const absl::Status status = Import(*here_, "t", out.bytes).status();
    EXPECT_FALSE(here_->loop().FindSession({"test", "t"}).ok());
    return status;
  };
  EXPECT_TRUE(absl::IsDataLoss(refused([](auto&, auto& state) { state.tokens[3] = 320; })));
  EXPECT_TRUE(absl::IsDataLoss(refused([](auto&, auto& state) { state.tokens[3] = -1; })));
  EXPECT_TRUE(
      absl::IsDataLoss(refused([](auto&, auto& state) { state.controls[0].controls.decay = 2; })));
  EXPECT_TRUE(absl::IsDataLoss(refused([](auto&, auto& state) { state.controls.clear(); })));
  EXPECT_TRUE(absl::IsDataLoss(
      refused([](auto&, auto& state) { state.updates.push_back({.chunk = 3, .position = 70}); })));
  EXPECT_TRUE(
      absl::IsDataLoss(refused([](auto& metadata, auto&) { metadata.labels["k"] = "\xff"; })));
  EXPECT_TRUE(
      absl::IsDataLoss(refused([](auto& metadata, auto&) { metadata.ttl = -absl::Seconds(1); })));
  const absl::Status other = refused([](auto& metadata, auto&) { ++metadata.log_meaning; });
  EXPECT_EQ(other.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(GetErrorInfo(other).reason, ErrorReason::kOtherModel);
}

TEST_F(SessionArchivesTest, NamesAreKept) {
  const std::string archive = Export(*here_, "s");
  EXPECT_TRUE(absl::IsAlreadyExists(BeginImport(*here_, "s").status()));
  const auto first = BeginImport(*here_, "t");
  ASSERT_TRUE(first.ok());
  ASSERT_TRUE(Append(**first, 0, archive).ok());
  ASSERT_TRUE(Import(*here_, "t", archive).ok());
  const auto late = Await<SessionInfo>(*here_, [&](auto done) {
    here_->loop().ImportSession({"test", "t"}, *first, done);
  });
  EXPECT_TRUE(absl::IsAlreadyExists(late.status())) << late.status();
  const absl::StatusOr<SessionInfo> drawn = Import(*here_, "", archive);
  ASSERT_TRUE(drawn.ok()) << drawn.status();
  EXPECT_EQ(drawn->key.id.size(), 32U);
  EXPECT_TRUE(absl::IsNotFound(StartExport(*here_, "nobody").status()));
}

TEST_F(SessionArchivesTest, WhatIsTooLargeIsRefused) {
  const std::string archive = Export(*here_, "s");
  DurableEngine small(kArchiveModel, With(key_, /*max_bytes=*/archive.size() - 1));
  const auto expect_refused = [](const absl::Status& status) {
    EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
    EXPECT_EQ(GetErrorInfo(status).reason, ErrorReason::kOutOfMemory);
    EXPECT_FALSE(GetErrorInfo(status).retryable) << "it never fits";
  };
  expect_refused(Import(*small, "t", archive).status());
  small->Create("s");
  EXPECT_TRUE(EndedOk(*small->Append("s", RandomTokens(90, 1))));
  expect_refused(StartExport(*small, "s").status());
  EXPECT_TRUE(EndedOk(*small->Append("s", {1})));
}

// A disk that fails in the spool as it is told to.
TEST_F(SessionArchivesTest, WhatTheDiskDoesIsToldAsThat) {
  const auto expect = [](const absl::Status& status, absl::StatusCode code, ErrorReason reason) {
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_EQ(GetErrorInfo(status).reason, reason);
    EXPECT_TRUE(GetErrorInfo(status).retryable);
    EXPECT_TRUE(GetErrorInfo(status).retry_delay.has_value());
  };
  const auto fail = [this](FileOp op, const rocksdb::IOStatus& with) {
    here_.disk().SetHook([op, with](FileOp done, const std::string& path) {
      const bool fails = done == op && path.find("/spool/") != std::string::npos;
      return fails ? with : rocksdb::IOStatus::OK();
    });
  };
  const auto full = BeginImport(*here_, "t"), failing = BeginImport(*here_, "u");
  ASSERT_TRUE(full.ok() && failing.ok());
  const std::string bytes(600'000, 'x');
  fail(FileOp::kAppend, rocksdb::IOStatus::NoSpace("full"));
  expect(Append(**full, 0, bytes), absl::StatusCode::kResourceExhausted, ErrorReason::kStorageFull);
  fail(FileOp::kAppend, rocksdb::IOStatus::IOError("broken"));
  expect(Append(**failing, 0, bytes), absl::StatusCode::kUnavailable, ErrorReason::kStorageFailed);
  EXPECT_TRUE((*full)->failed() && (*failing)->failed());
  here_.disk().SetHook(nullptr);
  const auto read = BeginImport(*here_, "v");
  ASSERT_TRUE(read.ok() && Append(**read, 0, bytes).ok());
  fail(FileOp::kRead, rocksdb::IOStatus::IOError("broken"));
  std::promise<absl::Status> told;
  (*read)->Read(0, 100, [&told](const auto& part) { told.set_value(part.status()); });
  expect(told.get_future().get(), absl::StatusCode::kUnavailable, ErrorReason::kStorageFailed);
  here_.disk().SetHook(nullptr);
}

TEST_F(SessionArchivesTest, AnImportThatEndsEarlyLeavesNothing) {
  const std::string archive = Export(*here_, "s");
  for (int i = 0; i < 2 * SessionArchives::kMaxArchives; ++i) {
    const auto file = BeginImport(*here_, "t");
    ASSERT_TRUE(file.ok()) << file.status();
    ASSERT_TRUE(Append(**file, 0, archive.substr(0, 500)).ok());
  }
  std::vector<absl::StatusOr<std::shared_ptr<ArchiveFile>>> files = {BeginImport(*here_, "t")};
  EXPECT_EQ(SpooledFiles(here_), 1) << "those before are removed in front of it";
  for (int i = 1; i < SessionArchives::kMaxArchives; ++i) {
    const bool others = i >= SessionArchives::kMaxArchivesOfTenant;
    files.push_back(BeginImport(*here_, "t", {}, others ? "other" : "test"));
    EXPECT_TRUE(files.back().ok());
  }
  const absl::Status full = BeginImport(*here_, "t", {}, "third").status();
  EXPECT_TRUE(absl::IsResourceExhausted(full)) << full;
  EXPECT_EQ(GetErrorInfo(full).reason, ErrorReason::kQueueFull);
}

TEST_F(SessionArchivesTest, ATenantLeavesRoomForOthers) {
  std::vector<std::shared_ptr<ArchiveFile>> files;
  for (int i = 0; i < SessionArchives::kMaxArchivesOfTenant; ++i) {
    files.push_back(*BeginImport(*here_, "t"));
  }
  for (const absl::Status& status :
       {BeginImport(*here_, "t").status(), StartExport(*here_, "s").status()}) {
    EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
    EXPECT_EQ(GetErrorInfo(status).reason, ErrorReason::kQueueFull);
    EXPECT_TRUE(GetErrorInfo(status).retryable);
  }
  EXPECT_TRUE(BeginImport(*here_, "t", {}, "other").ok());
  files.pop_back();
  EXPECT_TRUE(StartExport(*here_, "s").ok());
}

TEST(ArchivesInMemoryTest, WithoutAStoreThereAreNone) {
  LoopHarness engine(kArchiveModel);
  engine.Create("s");
  const absl::Status status = StartExport(engine, "s").status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("--data_dir"));
  EXPECT_TRUE(absl::IsFailedPrecondition(BeginImport(engine, "t").status()));
}

TEST_F(SessionArchivesTest, ADeletedSessionLeavesNeitherTokensNorKey) {
  MakeCheckpoint();
  here_.Stop();
  std::string key;
  {
    auto opened = SessionStore::Open({.data_dir = here_.data_dir()});
    key = std::string(opened->store->keys().Get(opened->listing.sessions.at(0).id)->bytes());
  }
  here_.Start();
  const absl::StatusOr<SessionArchive> archive = StartExport(*here_, "s");
  ASSERT_TRUE(archive.ok());
  const std::vector<int32_t> tokens = RandomTokens(70, 1);
  const auto found = [&](const std::string& bytes) {
    for (const std::string& content : FileContents(here_.data_dir())) {
      if (content.find(bytes) != std::string::npos) return true;
    }
    return false;
  };
  const auto tokens_found = [&] {
    for (size_t i = 0; i + 4 <= tokens.size(); ++i) {
      std::string bytes(4 * sizeof(int32_t), '\0');
      std::memcpy(bytes.data(), &tokens[i], bytes.size());
      if (found(bytes)) return true;
    }
    return false;
  };
  ASSERT_TRUE(found(key));
  EXPECT_FALSE(tokens_found());
  ASSERT_TRUE(here_->loop().DeleteSession({"test", "s"}).ok());
  here_->RunAll({});
  EXPECT_FALSE(found(key));
  EXPECT_FALSE(tokens_found());
  here_.Start();
  EXPECT_FALSE(found(key));
  EXPECT_FALSE(tokens_found());
  EXPECT_TRUE(absl::IsNotFound(StartExport(*here_, "s").status()));
}

}  // namespace
}  // namespace mneme
