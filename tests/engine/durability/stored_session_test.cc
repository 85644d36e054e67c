// What comes from a data directory is hostile: it is a status, and never reaches a session.

#include "engine/durability/stored_session.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "engine/error.h"
#include "storage/records.h"
#include "tests/engine/durability/durable_engine.h"
#include "tests/storage/edit_log.h"

namespace mneme {
namespace {

ModelConfig Config() {
  ModelConfig config;
  config.vocab_size = 100;
  config.max_position_embeddings = 64;
  config.windows = {0};
  config.ttt = TttConfig{};
  config.ttt->chunk = 4;
  return config;
}

// Ten tokens, of which the first chunk closed deferred.
SessionState State() {
  SessionState state;
  state.tokens = {0, 1, 2, 3, 4, 5, 6, 7, 8, 99};
  state.controls = {{.position = 0, .controls = {.max_lag_chunks = 2}}, {.position = 10}};
  state.updates = {{.chunk = 0, .position = 6}, {.chunk = 1, .position = 10}};
  state.open_turn = 9;
  state.requests = {{.id = "r",
                     .kind = 1,
                     .begin_position = 2,
                     .begin_open_turn = 1,
                     .end_position = 10,
                     .generated_logprobs = {{.logprob = -1, .top = {{3, -1}}}}}};
  return state;
}

TEST(StoredSessionTest, WhatWasLoggedComesBack) {
  const auto logs = FromStored(State(), Config());
  ASSERT_TRUE(logs.ok()) << logs.status();
  EXPECT_EQ(logs->tokens, State().tokens);
  EXPECT_EQ(logs->controls.At(3).max_lag_chunks, 2);
  EXPECT_EQ(logs->controls.latest(), LearningControls());
  EXPECT_EQ(logs->updates, (std::vector<UpdatePoint>{{0, 6}, {1, 10}}));
  EXPECT_EQ(logs->open_turn, 9);
  const auto record = logs->records.Find("r");
  ASSERT_NE(record, nullptr);
  EXPECT_EQ(ToStored(*record), State().requests[0]);
}

TEST(StoredSessionTest, WhatCannotHaveBeenLoggedIsDataLoss) {
  const std::vector<std::pair<std::string, std::function<void(SessionState&)>>> cases = {
      {"token", [](auto& s) { s.tokens[3] = 100; }},
      {"negative token", [](auto& s) { s.tokens[3] = -1; }},
      {"no controls", [](auto& s) { s.controls.clear(); }},
      {"late controls", [](auto& s) { s.controls[0].position = 1; }},
      {"not finite",
       [](auto& s) { s.controls[0].controls.clip_norm = std::numeric_limits<float>::quiet_NaN(); }},
      {"lag", [](auto& s) { s.controls[0].controls.max_lag_chunks = 1 << 20; }},
      {"update before its chunk closed", [](auto& s) { s.updates[0].position = 3; }},
      {"update skipped", [](auto& s) { s.updates.erase(s.updates.begin()); }},
      {"update of a frozen chunk", [](auto& s) { s.controls[0].controls.freeze = true; }},
      {"update of an exact chunk", [](auto& s) { s.controls[0].controls.max_lag_chunks = 0; }},
      {"update that is too far", [](auto& s) { s.updates[1].position = 11; }},
      {"update of no chunk", [](auto& s) { s.updates.push_back({.chunk = 2, .position = 10}); }},
      {"turn", [](auto& s) { s.open_turn = 11; }},
      {"kind", [](auto& s) { s.requests[0].kind = 2; }},
      {"end", [](auto& s) { s.requests[0].end_position = 11; }},
      {"turn at begin", [](auto& s) { s.requests[0].begin_open_turn = 3; }},
      {"finish", [](auto& s) { s.requests[0].finish = StoredFinish{.reason = 9}; }},
      {"log-probabilities", [](auto& s) { s.requests[0].append_logprobs.resize(9); }},
      {"alternatives", [](auto& s) { s.requests[0].generated_logprobs[0].top.resize(21); }},
      {"id", [](auto& s) { s.requests[0].id = std::string(129, 'r'); }},
      {"stop", [](auto& s) {
         s.requests[0].finish = StoredFinish{.matched_stop = std::string(1025, 's')};
       }}};
  for (const auto& [name, damage] : cases) {
    SessionState state = State();
    damage(state);
    EXPECT_EQ(FromStored(state, Config()).status().code(), absl::StatusCode::kDataLoss) << name;
  }
  SessionState too_long = State();
  too_long.tokens.resize(65);
  EXPECT_EQ(FromStored(too_long, Config()).status().code(), absl::StatusCode::kFailedPrecondition);
}

class DamagedSessionTest : public ::testing::TestWithParam<int> {
 protected:
  // The session's id in the store.
  static StoreId Find(DurableEngine& durable, const std::string& name) {
    durable.Stop();
    const auto opened = SessionStore::Open({.data_dir = durable.data_dir()});
    for (const ListedSession& session : opened->listing.sessions) {
      if (session.metadata.id == name) return session.id;
    }
    ADD_FAILURE() << name << " is not there";
    return {};
  }
};

// The number of the record that is damaged: the first, and the last, which a listing reads.
INSTANTIATE_TEST_SUITE_P(FirstAndLast, DamagedSessionTest, ::testing::Values(0, 2));

TEST_P(DamagedSessionTest, IsListedRefusedAndCanBeDeleted) {
  DurableEngine durable("tests/golden/qwen3-hidden-target");
  durable->Create("damaged");  // one record
  durable->Create("other");
  EXPECT_TRUE(EndedOk(*durable->Append("damaged", {1, 2})));
  EXPECT_TRUE(EndedOk(*durable->Append("damaged", {3, 4})));
  EXPECT_TRUE(EndedOk(*durable->Append("other", {5, 6})));
  DamageRecord(durable.data_dir(),
               LogKey(Find(durable, "damaged"), static_cast<uint64_t>(GetParam())));
  durable.Start();
  EngineLoop& loop = durable->loop();
  EXPECT_EQ(loop.ListSessions("test", "", 10).sessions.size(), 2u);
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(EndedWith(*durable->Append("damaged", {7}), absl::StatusCode::kDataLoss,
                          ErrorReason::kDataLoss));
  }
  EXPECT_EQ(loop.GetSession({"test", "damaged"}).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(loop.CreateSession({"test", "damaged"}, {}).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(EndedOk(*durable->Append("other", {7})));
  EXPECT_TRUE(loop.DeleteSession({"test", "damaged"}).ok());
  durable->Create("damaged");
  EXPECT_TRUE(EndedOk(*durable->Append("damaged", {7})));
  durable.Start();
  EXPECT_EQ(durable->Info("damaged").position, 1u);
  EXPECT_EQ(durable->Info("other").position, 3u);
}

}  // namespace
}  // namespace mneme
