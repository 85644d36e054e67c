// Checkpoints: what goes in comes out, and nothing else does.

#include "storage/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "storage/checkpoint_files.h"
#include "tests/storage/checkpoint_harness.h"
#include "tests/storage/store_harness.h"

namespace mneme {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr uint64_t kModel = 4711;

using Sections = std::map<std::string, std::string>;  // by name

SessionState StateOf(const std::vector<int32_t>& tokens) {
  SessionState state;
  EXPECT_TRUE(state.Apply(TokensLogged{tokens}).ok());
  return state;
}

// One section of each kind: longer than a frame, as long as one, short, and empty.
Sections SomeSections() {
  Sections sections;
  sections["delta[0]"] = std::string(2 * kFrameBytes + 5, 'd');
  sections["delta[1]"] = std::string(kFrameBytes, 'e');
  sections["kv[0]"] = std::string(100, 'k');
  sections["final_hidden[0]"] = "";
  sections["sampler[0]"] = "s";
  return sections;
}

absl::Status WriteSections(const Sections& sections, SectionWriter* writer) {
  MNEME_RETURN_IF_ERROR(writer->Write(SectionKind::kDelta, 0, sections.at("delta[0]")));
  MNEME_RETURN_IF_ERROR(writer->Write(SectionKind::kDelta, 1, sections.at("delta[1]")));
  MNEME_RETURN_IF_ERROR(writer->Begin(SectionKind::kKv, 0, 100));
  for (int i = 0; i < 10; ++i) MNEME_RETURN_IF_ERROR(writer->Append(std::string(10, 'k')));
  MNEME_RETURN_IF_ERROR(writer->Write(SectionKind::kFinalHidden, 0, ""));
  return writer->Write(SectionKind::kSampler, 0, "s");
}

absl::Status ReadSections(CheckpointReader& reader, Sections* sections) {
  sections->clear();
  while (true) {
    MNEME_ASSIGN_OR_RETURN(const auto head, reader.Next());
    if (!head) return absl::OkStatus();
    MNEME_ASSIGN_OR_RETURN((*sections)[NameOf(head->kind, head->index)],
                           reader.ReadAll(head->length));
  }
}

class CheckpointTest : public ::testing::Test {
 protected:
  CheckpointFiles files() { return CheckpointFiles(harness_.store()); }
  absl::Status Take(const StoreId& id, const CheckpointInfo& info) {
    MNEME_ASSIGN_OR_RETURN(const auto writer, files().Create(id, info));
    MNEME_RETURN_IF_ERROR(WriteSections(SomeSections(), &writer->sections()));
    return writer->Commit();
  }
  std::string PathOf(const StoreId& id, const CheckpointInfo& info) {
    return absl::StrCat(harness_.store().CheckpointDirectory(id), "/",
                        CheckpointName::Of(info).ToFileName());
  }
  // Restores and gives the sections.
  absl::StatusOr<Restored> Restore(const RestoreRequest& request, Sections* sections) {
    return files().RestoreNewest(
        request, [&](CheckpointReader& reader) { return ReadSections(reader, sections); });
  }

  StoreHarness harness_;
  const std::vector<int32_t> tokens_ = {1, 2, 3, 4, 5, 6, 7, 8};
  const SessionState state_ = StateOf(tokens_);
  const StoreId id_ = harness_.MakeSession("s", tokens_);
  const RestoreRequest request_{.id = id_, .state = &state_, .model_fingerprint = kModel};
};

TEST_F(CheckpointTest, GivesBackWhatWasWritten) {
  CheckpointInfo info = MakeCheckpointInfo(state_, 6, kModel, /*has_kv=*/true);
  info.create_time = absl::FromUnixSeconds(9);
  info.name = "before the exam";
  ASSERT_TRUE(Take(id_, info).ok());
  Sections sections;
  const auto restored = Restore(request_, &sections);
  ASSERT_TRUE(restored.ok()) << restored.status();
  EXPECT_EQ(restored->from, info);
  EXPECT_THAT(restored->refused, IsEmpty());
  EXPECT_EQ(sections, SomeSections());
}

TEST_F(CheckpointTest, IsSealed) {
  ASSERT_TRUE(Take(id_, MakeCheckpointInfo(state_, 6, kModel, true)).ok());
  for (const std::string& content : FileContents(harness_.data_dir())) {
    EXPECT_EQ(content.find("dddddddd"), std::string::npos);
  }
}

TEST_F(CheckpointTest, TheNewestThatFitsIsTaken) {
  for (const int64_t position : {2, 4, 6}) {
    ASSERT_TRUE(Take(id_, MakeCheckpointInfo(state_, position, kModel, position != 6)).ok());
  }
  Sections sections;
  EXPECT_EQ(Restore(request_, &sections)->from->position, 4);
  RestoreRequest request = request_;
  request.needs_kv = false;
  EXPECT_EQ(Restore(request, &sections)->from->position, 6);
  request.max_position = 3;
  EXPECT_EQ(Restore(request, &sections)->from->position, 2);
  request.max_position = 1;
  EXPECT_EQ(Restore(request, &sections)->from, std::nullopt);
}

TEST_F(CheckpointTest, OneThatIsRemovedMeanwhileIsPassedOver) {
  for (const int64_t position : {2, 4, 6}) {
    ASSERT_TRUE(Take(id_, MakeCheckpointInfo(state_, position, kModel, true)).ok());
  }
  const auto names = files().List(id_);
  ASSERT_TRUE(names.ok());
  Sections sections;
  const auto restored = files().RestoreNewest(request_, [&](CheckpointReader& reader) {
    if (reader.info().position < 6) return ReadSections(reader, &sections);
    EXPECT_TRUE(files().Remove(id_, {names->at(0), names->at(1)}).ok());
    return absl::DataLossError("and so is the one before");
  });
  ASSERT_TRUE(restored.ok()) << restored.status();
  EXPECT_EQ(restored->from->position, 2);
  EXPECT_THAT(restored->refused, SizeIs(2));
  ASSERT_TRUE(harness_.Commit({DeleteSession{id_}}).ok());
  EXPECT_TRUE(absl::IsNotFound(Restore(request_, &sections).status()));
}

TEST_F(CheckpointTest, WhatDoesNotFitTheLogOrTheModelIsRefused) {
  const CheckpointInfo info = MakeCheckpointInfo(state_, 6, kModel, true);
  ASSERT_TRUE(Take(id_, info).ok());
  const auto refusal = [&](const SessionState& state, uint64_t model) {
    Sections sections;
    const auto restored =
        Restore({.id = id_, .state = &state, .model_fingerprint = model}, &sections);
    EXPECT_EQ(restored->from, std::nullopt);
    EXPECT_THAT(restored->refused, SizeIs(1));
    EXPECT_TRUE(absl::IsFailedPrecondition(restored->refused[0]));
    return std::string(restored->refused[0].message());
  };
  EXPECT_THAT(refusal(state_, kModel + 1), HasSubstr("another model"));
  EXPECT_THAT(refusal(StateOf({1, 2, 3, 4, 5}), kModel), HasSubstr("behind the log's end"));
  EXPECT_THAT(refusal(StateOf({1, 2, 3, 4, 5, 7, 8}), kModel), HasSubstr("another log"));
  SessionState controlled = state_;
  ASSERT_TRUE(controlled.Apply(ControlsSet{8, {.freeze = true}}).ok());
  EXPECT_TRUE(CheckFits(info, controlled, kModel).ok());  // governs nothing that was computed
  controlled.controls.front().position = 5;
  EXPECT_THAT(refusal(controlled, kModel), HasSubstr("learning controls"));
  SessionState updated = state_;
  updated.updates.push_back({.chunk = 0, .position = 5});
  EXPECT_THAT(refusal(updated, kModel), HasSubstr("another log"));
}

TEST_F(CheckpointTest, FitsALogInWhichAWaitingUpdateWasAppliedSince) {
  SessionState state = state_;
  ASSERT_TRUE(state.Apply(UpdateApplied{.chunk = 0, .position = 8}).ok());
  const CheckpointInfo info = MakeCheckpointInfo(state, 8, kModel, true);
  ASSERT_TRUE(state.Apply(UpdateApplied{.chunk = 1, .position = 8}).ok());
  EXPECT_TRUE(CheckFits(info, state, kModel).ok());
  EXPECT_FALSE(CheckFits(MakeCheckpointInfo(state, 8, kModel, true), state_, kModel).ok());
}

TEST_F(CheckpointTest, SurvivesARollbackBehindIt) {
  const CheckpointInfo info = MakeCheckpointInfo(state_, 4, kModel, true);
  SessionState rolled_back = state_;
  ASSERT_TRUE(rolled_back.Apply(RolledBack{.position = 5, .epoch = 1}).ok());
  EXPECT_TRUE(CheckFits(info, rolled_back, kModel).ok());
}

TEST_F(CheckpointTest, EveryDamageIsFoundAndTheOneBeforeIsTaken) {
  const StoreId other = harness_.MakeSession("other", tokens_);
  const CheckpointInfo good = MakeCheckpointInfo(state_, 2, kModel, true);
  const CheckpointInfo info = MakeCheckpointInfo(state_, 6, kModel, true);
  ASSERT_TRUE(Take(id_, good).ok());
  ASSERT_TRUE(Take(id_, info).ok());
  ASSERT_TRUE(Take(other, info).ok());
  const std::string bytes = ReadFile(PathOf(id_, info));
  std::vector<Damage> damages = Damages(bytes, ReadFile(PathOf(other, info)));
  for (Damage& damage : Damages(bytes, ReadFile(PathOf(id_, good)))) {
    if (damage.what.find("another file") == std::string::npos) continue;
    damages.push_back({damage.what + " of the session", std::move(damage.bytes)});
  }
  damages.push_back({"another session's file", ReadFile(PathOf(other, info))});
  damages.push_back({"another file of the session", ReadFile(PathOf(id_, good))});
  damages.push_back({"empty", ""});
  EXPECT_GT(damages.size(), 200U);
  for (const Damage& damage : damages) {
    SCOPED_TRACE(damage.what);
    WriteFile(PathOf(id_, info), damage.bytes);
    Sections sections;
    const auto restored = Restore(request_, &sections);
    ASSERT_TRUE(restored.ok()) << restored.status();
    ASSERT_THAT(restored->refused, SizeIs(1));
    const absl::Status& status = restored->refused[0];
    EXPECT_TRUE(absl::IsDataLoss(status) || absl::IsFailedPrecondition(status)) << status;
    EXPECT_EQ(restored->from, good);
    EXPECT_EQ(sections, SomeSections());
  }
  WriteFile(PathOf(id_, info), bytes);
  Sections sections;
  EXPECT_EQ(Restore(request_, &sections)->from, info);
}

TEST_F(CheckpointTest, MessagesNameTheSection) {
  const CheckpointInfo info = MakeCheckpointInfo(state_, 6, kModel, true);
  ASSERT_TRUE(Take(id_, info).ok());
  TakenApart file(ReadFile(PathOf(id_, info)));
  file.sections[1].bytes[kSectionHeadBytes + 7] ^= 1;
  WriteFile(PathOf(id_, info), file.Joined());
  Sections sections;
  const auto restored = Restore(request_, &sections);
  EXPECT_THAT(std::string(restored->refused[0].message()), HasSubstr("section delta[0]"));
  EXPECT_THAT(std::string(restored->refused[0].message()), HasSubstr("checksum"));
}

TEST_F(CheckpointTest, AnotherFormatVersionIsAFailedPrecondition) {
  const CheckpointInfo info = MakeCheckpointInfo(state_, 6, kModel, true);
  ASSERT_TRUE(Take(id_, info).ok());
  std::string bytes = ReadFile(PathOf(id_, info));
  bytes[kCheckpointMagic.size()] = 2;
  const uint64_t checksum =
      Checksum(absl::string_view(bytes).substr(0, kHeaderBytes - kChecksumBytes));
  bytes.replace(kHeaderBytes - kChecksumBytes, kChecksumBytes,
                reinterpret_cast<const char*>(&checksum), kChecksumBytes);
  WriteFile(PathOf(id_, info), bytes);
  Sections sections;
  EXPECT_TRUE(absl::IsFailedPrecondition(Restore(request_, &sections)->refused[0]));
}

TEST_F(CheckpointTest, AtAPowerCutItIsWholeOrNotThere) {
  const CheckpointInfo info = MakeCheckpointInfo(state_, 6, kModel, true);
  for (int operation = 0;; ++operation) {
    int operations = 0;
    harness_.disk().SetHook([&](FileOp, const std::string&) {
      if (operations++ == operation) harness_.disk().CutPower();
      return rocksdb::IOStatus::OK();
    });
    const bool taken = Take(id_, info).ok();
    harness_.CutPower();
    ASSERT_TRUE(harness_.Open().ok());
    Sections sections;
    const auto restored = Restore(request_, &sections);
    ASSERT_TRUE(restored.ok());
    EXPECT_THAT(restored->refused, IsEmpty());
    EXPECT_TRUE(restored->from.has_value() || !taken) << operation;
    if (operations <= operation) break;
  }
}

TEST_F(CheckpointTest, AFailedWriteLeavesNothing) {
  for (const FileOp op : {FileOp::kCreate, FileOp::kAppend, FileOp::kSync, FileOp::kRename}) {
    harness_.disk().SetHook([op](FileOp asked, const std::string&) {
      return asked == op ? rocksdb::IOStatus::NoSpace("full") : rocksdb::IOStatus::OK();
    });
    const absl::Status status = Take(id_, MakeCheckpointInfo(state_, 6, kModel, true));
    EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
    EXPECT_TRUE(std::filesystem::is_empty(harness_.store().CheckpointDirectory(id_)));
  }
}

TEST_F(CheckpointTest, DroppedOnesAreGone) {
  for (const int64_t position : {2, 4, 6}) {
    ASSERT_TRUE(Take(id_, MakeCheckpointInfo(state_, position, kModel, true)).ok());
  }
  const auto names = files().List(id_);
  ASSERT_TRUE(files().Remove(id_, CheckpointsToDrop(*names, {.keep = 2})).ok());
  const auto left = files().List(id_);
  ASSERT_THAT(*left, SizeIs(2));
  EXPECT_EQ((*left)[0].position, 6);
  EXPECT_EQ((*left)[1].position, 4);
}

TEST(CheckpointPolicyTest, KeepsTheNewestThoseWithANameAndOneWithKv) {
  const CheckpointName a{.position = 50}, b{.position = 40}, named{.position = 35, .name_hash = 1},
      c{.position = 30}, with_kv{.position = 20, .has_kv = true},
      old_kv{.position = 10, .has_kv = true};
  EXPECT_THAT(CheckpointsToDrop({a, b, named, c, with_kv, old_kv}, {.keep = 2}),
              ElementsAre(c, old_kv));
}

TEST(CheckpointPolicyTest, IsDueByTokensOrTime) {
  const CheckpointPolicy policy{.every_tokens = 100, .every = absl::Minutes(1)};
  EXPECT_FALSE(CheckpointDue(policy, 99, 0, absl::Seconds(59)));
  EXPECT_TRUE(CheckpointDue(policy, 100, 0, absl::ZeroDuration()));
  EXPECT_TRUE(CheckpointDue(policy, 1, 0, absl::Seconds(60)));
  EXPECT_FALSE(CheckpointDue(policy, 5, 5, absl::Hours(1)));
}

TEST(CheckpointNameTest, ComesBackFromItsFileName) {
  const CheckpointName name{.position = 123456789, .epoch = 7, .has_kv = true, .name_hash = 42};
  EXPECT_EQ(CheckpointName::FromFileName(name.ToFileName()), name);
  for (const char* other : {"", "x", "0-0-0", "0000000000000001-00000001.checkpoint.tmp"}) {
    EXPECT_EQ(CheckpointName::FromFileName(other), std::nullopt) << other;
  }
}

}  // namespace
}  // namespace mneme
