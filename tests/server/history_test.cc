// Forks, rollbacks and checkpoints on the wire.

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "tests/server/server_fixture.h"

namespace mneme {
namespace {

class HistoryServiceTest : public ServerFixture {
 protected:
  void SetUp() override {
    v1::CreateSessionRequest request;
    request.set_session_id("s");
    v1::Session session;
    grpc::ClientContext context;
    ASSERT_TRUE(sessions_->CreateSession(&context, request, &session).ok());
  }

  grpc::Status Fork(const std::string& id, const std::string& new_id, uint64_t at_position,
                    v1::Session* fork) {
    v1::ForkSessionRequest request;
    request.set_session_id(id);
    request.set_new_session_id(new_id);
    request.set_at_position(at_position);
    grpc::ClientContext context;
    return sessions_->ForkSession(&context, request, fork);
  }
  grpc::Status Rollback(const std::string& id, uint64_t to_position, v1::Session* session) {
    v1::RollbackSessionRequest request;
    request.set_session_id(id);
    request.set_to_position(to_position);
    grpc::ClientContext context;
    return sessions_->RollbackSession(&context, request, session);
  }

  grpc::Status Checkpoint(const std::string& id, v1::CheckpointSessionResponse* checkpoint,
                          const std::string& name = "") {
    v1::CheckpointSessionRequest request;
    request.set_session_id(id);
    request.set_name(name);
    grpc::ClientContext context;
    return sessions_->CheckpointSession(&context, request, checkpoint);
  }

  v1::Session session_;
  v1::CheckpointSessionResponse checkpoint_;
};

TEST_F(HistoryServiceTest, WhatACheckpointHoldsIsTold) {
  ASSERT_TRUE(Fork("s", "fork", 7, &session_).ok());
  ASSERT_TRUE(Checkpoint("fork", &checkpoint_).ok());
  EXPECT_EQ(checkpoint_.position(), 7U);
  EXPECT_EQ(checkpoint_.checkpoint_bytes(), 4096U);
}

TEST_F(HistoryServiceTest, PositionsReachTheEngineAndNeverBecomeNegative) {
  ASSERT_TRUE(Fork("s", "fork", 7, &session_).ok());
  EXPECT_EQ(session_.session_id(), "fork");
  EXPECT_EQ(session_.position(), 7U);
  ASSERT_TRUE(Rollback("fork", UINT64_MAX, &session_).ok());
  EXPECT_EQ(session_.position(), uint64_t{INT64_MAX});
}

TEST_F(HistoryServiceTest, CheckpointsHaveNamesThatForksAndRollbacksTake) {
  ASSERT_TRUE(Rollback("s", 7, &session_).ok());
  ASSERT_TRUE(Checkpoint("s", &checkpoint_, "here").ok());
  EXPECT_EQ(checkpoint_.session_position(), 7U);
  ASSERT_TRUE(Rollback("s", 9, &session_).ok());
  ASSERT_EQ(session_.checkpoints_size(), 1);
  EXPECT_EQ(session_.checkpoints(0).name(), "here");
  EXPECT_EQ(session_.checkpoints(0).position(), 7U);
  v1::ForkSessionRequest fork;
  fork.set_session_id("s");
  fork.set_new_session_id("fork");
  fork.set_checkpoint("here");
  grpc::ClientContext fork_context;
  ASSERT_TRUE(sessions_->ForkSession(&fork_context, fork, &session_).ok());
  EXPECT_EQ(session_.position(), 7U);
  v1::RollbackSessionRequest rollback;
  rollback.set_session_id("s");
  rollback.set_checkpoint("here");
  grpc::ClientContext rollback_context;
  ASSERT_TRUE(sessions_->RollbackSession(&rollback_context, rollback, &session_).ok());
  EXPECT_EQ(session_.position(), 7U);
}

TEST_F(HistoryServiceTest, NamesAreCheckedAndTakeThePlaceOfAPosition) {
  EXPECT_EQ(Checkpoint("s", &checkpoint_, "a b").error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  v1::ForkSessionRequest fork;
  fork.set_session_id("s");
  v1::RollbackSessionRequest rollback;
  rollback.set_session_id("s");
  grpc::ClientContext nowhere;
  EXPECT_EQ(sessions_->RollbackSession(&nowhere, rollback, &session_).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  for (const bool malformed : {true, false}) {
    SCOPED_TRACE(malformed);
    fork.set_checkpoint(malformed ? "a/b" : "here");
    rollback.set_checkpoint(malformed ? "a/b" : "here");
    grpc::ClientContext fork_context, rollback_context;
    EXPECT_EQ(sessions_->ForkSession(&fork_context, fork, &session_).error_code(),
              grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(sessions_->RollbackSession(&rollback_context, rollback, &session_).error_code(),
              grpc::StatusCode::INVALID_ARGUMENT);
    fork.set_at_position(0);
    rollback.set_to_position(0);
  }
}

TEST_F(HistoryServiceTest, IdsAreChecked) {
  EXPECT_EQ(Fork("s", "a b", 0, &session_).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Fork("", "fork", 0, &session_).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Rollback("", 0, &session_).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Fork("none", "fork", 0, &session_).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Checkpoint("", &checkpoint_).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Checkpoint("none", &checkpoint_).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Rollback("none", 0, &session_).error_code(), grpc::StatusCode::NOT_FOUND);
}

}  // namespace
}  // namespace mneme
