// What was committed of a session is there after closing and opening, and nobody can read it
// without its key.

#include "storage/session_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "storage/records.h"
#include "tests/storage/edit_log.h"
#include "tests/storage/store_harness.h"

namespace mneme {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// The bytes of `tokens` as they would stand in memory.
std::string BytesOf(const std::vector<int32_t>& tokens) {
  return {reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(int32_t)};
}

bool OnDisk(const StoreHarness& harness, const std::string& bytes) {
  for (const std::string& content : FileContents(harness.data_dir())) {
    if (content.find(bytes) != std::string::npos) return true;
  }
  return false;
}

std::string ReadRecord(rocksdb::DB& db, const std::string& key) {
  std::string value;
  EXPECT_TRUE(db.Get({}, key, &value).ok());
  return value;
}

StoredRequest Request(const std::string& id) {
  return {.id = id,
          .kind = 1,
          .payload_hash = 7,
          .begin_version = 3,
          .begin_open_turn = 1,
          .input_tokens = 2,
          .seed = 99,
          .end_position = 2,
          .append_logprobs = {-1.5F},
          .generated_logprobs = {{-0.5F, {{5, -0.5F}, {6, -2.0F}}}}};
}

TEST(SessionStoreTest, EverythingComesBack) {
  StoreHarness harness;
  const StoreId id = StoreId::Random();
  const SessionMetadata metadata{.tenant = "tenant",
                                 .id = "notes",
                                 .labels = {{"colour", "blue"}},
                                 .ttl = absl::Seconds(90),
                                 .create_time = absl::FromUnixSeconds(5)};
  LogEvents first = LogTokens(id, 0, {1, 2, 3});
  first.events.emplace_back(ControlsSet{3, {.clip_norm = 0.5F, .freeze = true}});
  first.events.emplace_back(UpdateApplied{.chunk = 0, .position = 3});
  first.events.emplace_back(OpenTurnSet{2});
  first.events.emplace_back(RequestRecorded{Request("a")});
  LogEvents second = LogTokens(id, 3, {4});
  second.events.emplace_back(RequestAdvanced{.id = "a",
                                             .end_position = 4,
                                             .generated_logprobs = {{-1.0F, {}}},
                                             .finish = StoredFinish{.matched_stop = "end"},
                                             .complete = true});
  ASSERT_TRUE(harness.Commit({CreateSession{id, metadata}, first}).ok());
  ASSERT_TRUE(harness.Commit({second}).ok());

  ASSERT_TRUE(harness.Open().ok());
  ASSERT_THAT(harness.listing().sessions, SizeIs(1));
  const ListedSession& listed = harness.listing().sessions[0];
  EXPECT_EQ(listed.metadata, metadata);
  EXPECT_EQ(listed.position, 4);
  EXPECT_EQ(listed.last_used_time, absl::UnixEpoch() + absl::Seconds(3));
  const auto state = harness.store().Load(id);
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_THAT(state->tokens, ElementsAre(1, 2, 3, 4));
  ASSERT_THAT(state->controls, SizeIs(1));
  EXPECT_EQ(state->controls[0].controls, (StoredControls{.clip_norm = 0.5F, .freeze = true}));
  ASSERT_THAT(state->updates, SizeIs(1));
  EXPECT_EQ(state->open_turn, 2);
  StoredRequest expected = Request("a");
  expected.end_position = 4;
  expected.generated_logprobs.push_back({-1.0F, {}});
  expected.finish = StoredFinish{.matched_stop = "end"};
  expected.complete = true;
  EXPECT_THAT(state->requests, ElementsAre(expected));
}

TEST(SessionStoreTest, WritingGoesOnAfterReopening) {
  StoreHarness harness;
  const StoreId id = harness.MakeSession("s", {1});
  for (int32_t i = 2; i < 6; ++i) {
    ASSERT_TRUE(harness.Open().ok());
    ASSERT_TRUE(harness.Commit({LogTokens(id, i - 1, {i})}).ok());
  }
  EXPECT_THAT(harness.store().Load(id)->tokens, ElementsAre(1, 2, 3, 4, 5));
}

// What an import, a fork or a compaction writes of a long session.
TEST(SessionStoreTest, WhatIsTooLongForOneRecordIsWrittenAsSeveral) {
  StoreHarness harness(Durability::kSync, /*max_record_bytes=*/100);
  const StoreId id = harness.MakeSession("s", {0});
  LogEvents log = LogTokens(id, 1, RareTokens(199, 1));
  log.events.emplace_back(ControlsSet{200, {.decay = 0.5F}});
  log.events.emplace_back(UpdateApplied{.chunk = 0, .position = 200});
  log.events.emplace_back(OpenTurnSet{1});
  for (const std::string name : {"a", "b", "c"})
    log.events.emplace_back(RequestRecorded{Request(name)});
  ASSERT_TRUE(harness.Commit({log}).ok());
  const auto records = [&] {
    harness.Close();
    std::vector<size_t> sizes;
    EditLog(harness.data_dir(), [&](rocksdb::DB& db) {
      const std::unique_ptr<rocksdb::Iterator> record(db.NewIterator({}));
      for (record->Seek(LogPrefix(id)); record->Valid(); record->Next()) {
        if (!record->key().starts_with(LogPrefix(id))) break;
        sizes.push_back(record->value().size());
      }
    });
    EXPECT_TRUE(harness.Open().ok());
    return sizes;
  };
  const SessionState before = *harness.store().Load(id);
  EXPECT_EQ(before.position(), 200);
  EXPECT_EQ(before.requests.size(), 3U);
  const std::vector<size_t> sizes = records();
  EXPECT_GT(sizes.size(), 9U);
  EXPECT_LT(*std::max_element(sizes.begin(), sizes.end()), 220U) << "with its head, nonce and tag";
  EXPECT_EQ(harness.listing().sessions[0].position, 200);
  for (int32_t token = 200; token < 240; ++token) {
    ASSERT_TRUE(harness.Commit({LogTokens(id, token, {token})}).ok());
  }
  while (harness.store().health().logs_to_compact > 0) std::this_thread::yield();
  EXPECT_LT(records().size(), sizes.size() + 30) << "it was compacted";
  const SessionState after = *harness.store().Load(id);
  EXPECT_EQ(after.position(), 240);
  EXPECT_EQ(std::vector<int32_t>(after.tokens.begin(), after.tokens.begin() + 200), before.tokens);
  EXPECT_EQ(after.requests, before.requests);
  EXPECT_EQ(after.controls.size(), before.controls.size());
  EXPECT_EQ(after.updates.size(), before.updates.size());
}

TEST(SessionStoreTest, AGrownLogBecomesOneRecordAndStaysTheSame) {
  StoreHarness harness;
  const StoreId id = harness.MakeSession("s", {0});
  LogEvents log = LogTokens(id, 1, {1});
  log.events.emplace_back(ControlsSet{2, {.decay = 0.5F}});
  log.events.emplace_back(UpdateApplied{.chunk = 0, .position = 2});
  log.events.emplace_back(OpenTurnSet{1});
  log.events.emplace_back(RequestRecorded{Request("a")});
  ASSERT_TRUE(harness.Commit({log}).ok());
  int32_t token = 2;
  for (; token < 2 * StoreHarness::kCompactAfterRecords; ++token) {
    ASSERT_TRUE(harness.Commit({LogTokens(id, token, {token})}).ok());
  }
  while (harness.store().health().logs_to_compact > 0) std::this_thread::yield();
  const SessionState before = *harness.store().Load(id);
  ASSERT_TRUE(harness.Open().ok());
  EXPECT_EQ(harness.listing().sessions[0].position, token);
  EXPECT_EQ(harness.listing().sessions[0].last_used_time,
            absl::UnixEpoch() + absl::Seconds(token - 1));
  const SessionState after = *harness.store().Load(id);
  EXPECT_EQ(after.tokens, before.tokens);
  EXPECT_EQ(after.requests, before.requests);
  EXPECT_EQ(after.open_turn, before.open_turn);
  EXPECT_EQ(after.controls.size(), 1U);
  EXPECT_EQ(after.updates.size(), 1U);
  ASSERT_TRUE(harness.Commit({LogTokens(id, token, {token})}).ok());
  EXPECT_EQ(harness.store().Load(id)->position(), token + 1);
  harness.Close();
  EditLog(harness.data_dir(), [&](rocksdb::DB& db) {
    std::string value;
    EXPECT_TRUE(db.Get({}, LogKey(id, 0), &value).IsNotFound());
  });
}

TEST(SessionStoreTest, RollbackForgetsWhatLiesBehind) {
  StoreHarness harness;
  const StoreId id = StoreId::Random();
  LogEvents log = LogTokens(id, 0, {1, 2, 3, 4});
  log.events.emplace_back(ControlsSet{1, {.decay = 0.5F}});
  log.events.emplace_back(ControlsSet{3, {.freeze = true}});
  log.events.emplace_back(RequestRecorded{Request("kept")});
  StoredRequest undone = Request("undone");
  undone.end_position = 4;
  log.events.emplace_back(RequestRecorded{undone});
  LogEvents back{.id = id, .epoch = 1, .position = 2, .time = absl::UnixEpoch()};
  back.events.emplace_back(RolledBack{.position = 2, .epoch = 1});
  ASSERT_TRUE(harness.Commit({CreateSession{id, {}}, log}).ok());
  ASSERT_TRUE(harness.Commit({back}).ok());
  ASSERT_TRUE(harness.Open().ok());
  EXPECT_EQ(harness.listing().sessions[0].epoch, 1U);
  EXPECT_EQ(harness.listing().sessions[0].position, 2);
  const auto state = harness.store().Load(id);
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_THAT(state->tokens, ElementsAre(1, 2));
  EXPECT_THAT(state->controls, SizeIs(1));
  EXPECT_THAT(state->requests, ElementsAre(Request("kept")));
}

TEST(SessionStoreTest, KeepsTheLastRequests) {
  SessionState state;
  ASSERT_TRUE(state.Apply(TokensLogged{{1, 2}}).ok());
  for (int i = 0; i <= static_cast<int>(SessionState::kMaxRequests); ++i) {
    ASSERT_TRUE(state.Apply(RequestRecorded{Request(std::to_string(i))}).ok());
  }
  EXPECT_EQ(state.requests.size(), SessionState::kMaxRequests);
  EXPECT_EQ(state.requests.front().id, "1");
}

TEST(SessionStoreTest, NeitherTokensNorNamesAreOnTheDiskInTheClear) {
  StoreHarness harness;
  const std::vector<int32_t> tokens = RareTokens(64, 1);
  harness.MakeSession("a_session_of_this_name", tokens);
  harness.Close();
  EXPECT_FALSE(OnDisk(harness, BytesOf({tokens[0], tokens[1]})));
  EXPECT_FALSE(OnDisk(harness, "a_session_of_this_name"));
}

TEST(SessionStoreTest, DeletingLeavesNoKey) {
  StoreHarness harness;
  const StoreId kept = harness.MakeSession("kept", {1});
  const StoreId id = harness.MakeSession("deleted", RareTokens(64, 2));
  const std::string key(harness.store().keys().Get(id)->bytes());
  std::filesystem::create_directory(harness.store().CheckpointDirectory(id));
  std::ofstream(harness.store().CheckpointDirectory(id) + "/checkpoint") << "x";
  ASSERT_TRUE(OnDisk(harness, key));

  ASSERT_TRUE(harness.Commit({DeleteSession{id}}).ok());
  EXPECT_FALSE(OnDisk(harness, key));
  EXPECT_FALSE(std::filesystem::exists(harness.store().CheckpointDirectory(id)));
  EXPECT_TRUE(absl::IsNotFound(harness.store().Load(id).status()));
  ASSERT_TRUE(harness.Open().ok());
  ASSERT_THAT(harness.listing().sessions, SizeIs(1));
  EXPECT_EQ(harness.listing().sessions[0].id, kept);
  EXPECT_THAT(harness.listing().damaged, IsEmpty());
}

TEST(SessionStoreTest, LoggingToADeletedSessionDoesNotBringItBack) {
  StoreHarness harness;
  const StoreId id = harness.MakeSession("s", {1});
  ASSERT_TRUE(harness.Commit({DeleteSession{id}, LogTokens(id, 1, {2})}).ok());
  ASSERT_TRUE(harness.Commit({LogTokens(id, 2, {3}), SetMetadata{id, {}}}).ok());
  ASSERT_TRUE(harness.Open().ok());
  EXPECT_THAT(harness.listing().sessions, IsEmpty());
  EXPECT_THAT(harness.listing().damaged, IsEmpty());
}

TEST(SessionStoreTest, ASessionWithoutItsKeyIsReportedAndCanBeDeleted) {
  StoreHarness harness;
  const StoreId lost = harness.MakeSession("lost", {1});
  harness.MakeSession("other", {1});
  harness.Close();
  std::filesystem::remove(harness.data_dir() + "/keys/" + lost.ToHex() + ".key");
  ASSERT_TRUE(harness.Open().ok());
  EXPECT_THAT(harness.listing().sessions, SizeIs(1));
  ASSERT_THAT(harness.listing().damaged, SizeIs(1));
  EXPECT_EQ(harness.listing().damaged[0].first, lost);
  EXPECT_TRUE(absl::IsDataLoss(harness.listing().damaged[0].second));
  ASSERT_TRUE(harness.Commit({DeleteSession{lost}}).ok());
  ASSERT_TRUE(harness.Open().ok());
  EXPECT_THAT(harness.listing().damaged, IsEmpty());
}

TEST(SessionStoreTest, DamagedRecordsAreDataLossOfTheirSessionAlone) {
  for (const bool in_log : {true, false}) {
    const auto record = [in_log](const StoreId& id) {
      return in_log ? LogKey(id, 0) : MetadataKey(id);
    };
    for (const char* damage : {"truncated", "flipped", "swapped"}) {
      SCOPED_TRACE(damage);
      StoreHarness harness;
      const StoreId id = harness.MakeSession("damaged", {1, 2});
      const StoreId other = harness.MakeSession("other", {3, 4});
      harness.Close();
      EditLog(harness.data_dir(), [&](rocksdb::DB& db) {
        std::string value = ReadRecord(db, record(id));
        if (*damage == 't') value.pop_back();
        if (*damage == 'f') value[value.size() / 2] ^= 1;
        if (*damage == 's') value = ReadRecord(db, record(other));
        ASSERT_TRUE(db.Put({}, record(id), value).ok());
      });
      ASSERT_TRUE(harness.Open().ok());
      const SessionListing& listing = harness.listing();
      EXPECT_THAT(listing.sessions, SizeIs(in_log ? 2 : 1));
      EXPECT_THAT(listing.damaged, SizeIs(in_log ? 0 : 1));
      for (const auto& [damaged, status] : listing.damaged) {
        EXPECT_EQ(damaged, id);
        EXPECT_TRUE(absl::IsDataLoss(status));
      }
      for (const ListedSession& session : listing.sessions) {
        EXPECT_EQ(absl::IsDataLoss(session.damage), session.id == id);
      }
      EXPECT_THAT(harness.store().Load(other)->tokens, ElementsAre(3, 4));
      ASSERT_TRUE(harness.Commit({DeleteSession{id}}).ok());
      ASSERT_TRUE(harness.Open().ok());
      EXPECT_THAT(harness.listing().sessions, SizeIs(1));
      EXPECT_THAT(harness.listing().damaged, IsEmpty());
    }
  }
}

TEST(SessionStoreTest, AMissingRecordIsDataLoss) {
  StoreHarness harness;
  const StoreId id = harness.MakeSession("s", {1});
  ASSERT_TRUE(harness.Commit({LogTokens(id, 1, {2})}).ok());
  ASSERT_TRUE(harness.Commit({LogTokens(id, 2, {3})}).ok());
  harness.Close();
  EditLog(harness.data_dir(),
          [&](rocksdb::DB& db) { ASSERT_TRUE(db.Delete({}, LogKey(id, 1)).ok()); });
  ASSERT_TRUE(harness.Open().ok());
  EXPECT_TRUE(absl::IsDataLoss(harness.store().Load(id).status()));
}

}  // namespace
}  // namespace mneme
