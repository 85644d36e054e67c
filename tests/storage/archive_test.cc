// Archives: a session taken to another server.

#include "storage/archive.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "storage/checkpoint_files.h"
#include "storage/spool.h"
#include "tests/storage/checkpoint_harness.h"
#include "tests/storage/store_harness.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kModel = 4711;

class ArchiveTest : public ::testing::Test {
 protected:
  ArchiveTest() {
    EXPECT_TRUE(state_.Apply(TokensLogged{{1, 2, 3, 4, 5, 6}}).ok());
    EXPECT_TRUE(state_.Apply(ControlsSet{3, {.decay = 0.25F}}).ok());
    checkpoint_ = MakeCheckpoint(id_, 4, std::string(kFrameBytes + 100, 'd'));
  }

  // A checkpoint's bytes.
  std::string MakeCheckpoint(const StoreId& id, int64_t position, const std::string& delta) {
    const std::string path = directory_ / "checkpoint";
    auto writer = CheckpointWriter::Create(RealFileSystem(), path, id, session_key_,
                                           MakeCheckpointInfo(state_, position, kModel, true));
    EXPECT_TRUE((*writer)->sections().Write(SectionKind::kDelta, 0, delta).ok());
    EXPECT_TRUE((*writer)->sections().Write(SectionKind::kSampler, 0, "").ok());
    EXPECT_TRUE((*writer)->Commit().ok());
    return ReadFile(path);
  }

  // The archive's bytes from `offset` on.
  std::string Export(const std::optional<SecretKey>& key, uint64_t offset = 0) {
    const MemoryFile file(checkpoint_);
    auto reader = CheckpointReader::Open("checkpoint", file, id_, session_key_);
    EXPECT_TRUE(reader.ok()) << reader.status();
    ArchiveExport archive(metadata_, state_, &*reader, key);
    MemoryFile out;
    EXPECT_TRUE(archive.WriteTo(out, offset).ok());
    return out.bytes;
  }

  // What comes of the archive's state in a new session.
  absl::Status Import(const std::string& archive, const SecretKey& key,
                      uint64_t model = kModel) const {
    const MemoryFile file(archive);
    auto reader = ArchiveReader::Open("archive", file);
    if (!reader.ok()) return reader.status();
    const std::string path = directory_ / "imported";
    auto checkpoint = reader->CopyState(key, model, [&](const CheckpointInfo& info) {
      return CheckpointWriter::Create(RealFileSystem(), path, new_id_, session_key_, info);
    });
    if (!checkpoint.ok()) return checkpoint.status();
    return (*checkpoint)->Commit();
  }

  const TemporaryDirectory directory_;
  const SecretKey session_key_ = SecretKey::Random();
  const SecretKey key_ = SecretKey::Random();
  const StoreId id_ = StoreId::Random(), new_id_ = StoreId::Random();
  const SessionMetadata metadata_{
      .tenant = "tenant", .id = "notes", .create_time = absl::UnixEpoch()};
  SessionState state_;
  std::string checkpoint_;
};

TEST_F(ArchiveTest, LogAndStateArrive) {
  const std::string archive = Export(key_);
  const MemoryFile file(archive);
  const auto reader = ArchiveReader::Open("archive", file);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ(reader->metadata(), metadata_);
  EXPECT_EQ(reader->state().tokens, state_.tokens);
  EXPECT_EQ(reader->state().controls.size(), 1U);

  ASSERT_TRUE(Import(archive, key_).ok());
  const MemoryFile imported(ReadFile(directory_ / "imported"));
  auto checkpoint = CheckpointReader::Open("imported", imported, new_id_, session_key_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->info().position, 4);
  ASSERT_TRUE(checkpoint->Next().ok());
  EXPECT_EQ(*checkpoint->ReadAll(UINT64_MAX), std::string(kFrameBytes + 100, 'd'));
  EXPECT_TRUE(checkpoint->Verify().ok());
}

TEST_F(ArchiveTest, AStreamGoesOnAtAnyOffset) {
  const std::string archive = Export(key_);
  EXPECT_EQ(Export(key_), archive);
  for (const size_t offset : {size_t{1}, kHeaderBytes + 5, archive.size() / 2, archive.size()}) {
    EXPECT_EQ(Export(key_, offset), archive.substr(offset)) << offset;
  }
  MemoryFile out;
  ArchiveExport log_only(metadata_, state_, nullptr, key_);
  EXPECT_TRUE(absl::IsOutOfRange(log_only.WriteTo(out, archive.size())));
}

TEST_F(ArchiveTest, AnotherContentIsAnotherArchive) {
  const auto id = [this](const SessionState& state) {
    return ArchiveExport(metadata_, state, nullptr, key_).id();
  };
  const StoreId before = id(state_);
  EXPECT_EQ(id(state_), before);
  ASSERT_TRUE(state_.Apply(TokensLogged{{7}}).ok());
  EXPECT_NE(id(state_), before);
}

TEST_F(ArchiveTest, StateIsTakenOnlyWithTheKeyThatSealedIt) {
  const absl::Status foreign = Import(Export(key_), SecretKey::Random());
  EXPECT_TRUE(absl::IsFailedPrecondition(foreign)) << foreign;
  EXPECT_THAT(std::string(foreign.message()), HasSubstr("another key"));
  EXPECT_TRUE(absl::IsNotFound(Import(Export(std::nullopt), key_)));
  EXPECT_TRUE(absl::IsFailedPrecondition(Import(Export(key_), key_, kModel + 1)));
  EXPECT_EQ(Export(std::nullopt).find("dddd"), std::string::npos);
}

TEST_F(ArchiveTest, EveryDamageIsFound) {
  const std::string archive = Export(key_);
  checkpoint_ = MakeCheckpoint(id_, 2, "other");
  const std::string other = Export(key_);
  for (const Damage& damage : Damages(archive, other)) {
    // Metadata and log are the same in both and anybody's to write.
    if (damage.what.starts_with("metadata[0] of") || damage.what.starts_with("log[0] of")) continue;
    // Without its salt the state does not open, but that is found after the log is read.
    const absl::Status status = Import(damage.bytes, key_);
    EXPECT_TRUE(absl::IsDataLoss(status) || absl::IsFailedPrecondition(status))
        << damage.what << ": " << status;
  }
  EXPECT_TRUE(absl::IsDataLoss(Import("", key_)));
}

TEST_F(ArchiveTest, StateOfAnotherLogIsRefused) {
  TakenApart sealed(Export(key_));
  ASSERT_TRUE(state_.Apply(RolledBack{.position = 3, .epoch = 1}).ok());
  ASSERT_TRUE(state_.Apply(TokensLogged{{9, 9, 9}}).ok());
  MemoryFile out;
  ASSERT_TRUE(ArchiveExport(metadata_, state_, nullptr, std::nullopt).WriteTo(out, 0).ok());
  sealed.sections[1] = TakenApart(out.bytes).sections[1];  // its log
  const absl::Status status = Import(sealed.Joined(), key_);
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("another log"));
}

class SpoolTest : public ::testing::Test {
 protected:
  const TemporaryDirectory directory_;
  const std::string path_ = directory_ / "spool";
  std::unique_ptr<Spool> spool_ = *Spool::Create(RealFileSystem(), path_, 3 * kFrameBytes);
};

TEST_F(SpoolTest, HoldsWhatWasAppended) {
  std::string bytes;
  for (size_t i = 0; i < 2 * kFrameBytes + 77; ++i) bytes.push_back(static_cast<char>(i * i >> 5));
  for (size_t at = 0; at < bytes.size(); at += 10007) {
    ASSERT_TRUE(spool_->Append(at, absl::string_view(bytes).substr(at, 10007)).ok());
  }
  ASSERT_EQ(spool_->size(), bytes.size());
  std::string read(bytes.size(), '\0');
  ASSERT_TRUE(spool_->ReadAt(0, read.size(), read.data()).ok());
  EXPECT_EQ(read, bytes);
  read.resize(100);
  ASSERT_TRUE(spool_->ReadAt(kFrameBytes - 50, 100, read.data()).ok());
  EXPECT_EQ(read, bytes.substr(kFrameBytes - 50, 100));
  EXPECT_TRUE(absl::IsDataLoss(spool_->ReadAt(bytes.size() - 1, 2, read.data())));
}

TEST_F(SpoolTest, SaysWhereToGoOn) {
  ASSERT_TRUE(spool_->Append(0, "0123").ok());
  const absl::Status status = spool_->Append(2, "23");
  EXPECT_TRUE(absl::IsOutOfRange(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("4 bytes"));
  EXPECT_TRUE(spool_->Append(4, "45").ok());
}

TEST_F(SpoolTest, EndsAtItsLimit) {
  EXPECT_TRUE(absl::IsInvalidArgument(spool_->Append(0, std::string(3 * kFrameBytes + 1, 'x'))));
}

TEST_F(SpoolTest, LeavesNothingReadableAndNoFile) {
  ASSERT_TRUE(spool_->Append(0, std::string(kFrameBytes + 1, 'x')).ok());
  EXPECT_EQ(ReadFile(path_).find("xxxxxxxx"), std::string::npos);
  spool_.reset();
  EXPECT_FALSE(std::filesystem::exists(path_));
}

}  // namespace
}  // namespace mneme
