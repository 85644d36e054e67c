// Forks, rollbacks and checkpoints of sessions that a restart has left on the disk, over the wire:
// nobody is told to try again.

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/e2e/real_server.h"
#include "tests/engine/loop_harness.h"
#include "tests/storage/temporary_directory.h"

namespace mneme {
namespace {

constexpr char kModel[] = "tests/golden/qwen3-hidden-target";

class HistoryServerTest : public ::testing::Test {
 protected:
  HistoryServerTest() {
    Restart();
    EXPECT_TRUE(server_->Create("s").ok());
    EXPECT_TRUE(server_->Append({IdsMessage(tokens_, "s")}).status.ok());
    Restart();
  }

  void Restart() {
    server_.reset();
    server_ = std::make_unique<RealServer>(kModel, nullptr, directory_.path());
  }

  grpc::Status Fork(const std::string& new_id, std::chrono::system_clock::time_point deadline =
                                                   std::chrono::system_clock::time_point::max()) {
    v1::ForkSessionRequest request;
    request.set_session_id("s");
    request.set_new_session_id(new_id);
    grpc::ClientContext context;
    context.set_deadline(deadline);
    v1::Session session;
    return server_->sessions().ForkSession(&context, request, &session);
  }
  grpc::Status Rollback(uint64_t position) {
    v1::RollbackSessionRequest request;
    request.set_to_position(position);
    return Rollback(std::move(request));
  }
  // To a checkpoint, or a fork `new_id` of it.
  grpc::Status RollbackTo(const std::string& checkpoint) {
    v1::RollbackSessionRequest request;
    request.set_checkpoint(checkpoint);
    return Rollback(std::move(request));
  }
  grpc::Status Rollback(v1::RollbackSessionRequest request) {
    request.set_session_id("s");
    grpc::ClientContext context;
    v1::Session session;
    return server_->sessions().RollbackSession(&context, request, &session);
  }
  grpc::Status ForkAt(const std::string& checkpoint, const std::string& new_id) {
    v1::ForkSessionRequest request;
    request.set_session_id("s");
    request.set_new_session_id(new_id);
    request.set_checkpoint(checkpoint);
    grpc::ClientContext context;
    v1::Session session;
    return server_->sessions().ForkSession(&context, request, &session);
  }
  v1::Session Get(const std::string& id) {
    v1::GetSessionRequest request;
    request.set_session_id(id);
    grpc::ClientContext context;
    v1::Session session;
    EXPECT_TRUE(server_->sessions().GetSession(&context, request, &session).ok());
    return session;
  }
  grpc::Status Checkpoint(uint64_t* position, const std::string& name = "") {
    v1::CheckpointSessionRequest request;
    request.set_session_id("s");
    request.set_name(name);
    grpc::ClientContext context;
    v1::CheckpointSessionResponse response;
    const grpc::Status status = server_->sessions().CheckpointSession(&context, request, &response);
    *position = response.position();
    return status;
  }

  const TemporaryDirectory directory_;
  const std::vector<int32_t> tokens_ = RandomTokens(300, 1);
  std::unique_ptr<RealServer> server_;
};

TEST_F(HistoryServerTest, TheyWaitUntilTheSessionIsBack) {
  EXPECT_TRUE(Fork("fork").ok());
  EXPECT_EQ(server_->PositionOf("fork"), 300u);
  Restart();
  EXPECT_TRUE(Rollback(200).ok());
  EXPECT_EQ(server_->PositionOf("s"), 200u);
  Restart();
  uint64_t position = 0;
  EXPECT_TRUE(Checkpoint(&position).ok());
  EXPECT_EQ(position, 199u);
  EXPECT_TRUE(
      server_->Append({IdsMessage({tokens_.begin() + 200, tokens_.end()}, "s")}).status.ok());
  EXPECT_EQ(server_->Generate(GreedyMessage("s", 30)).ids,
            server_->Generate(GreedyMessage("fork", 30)).ids);
}

TEST_F(HistoryServerTest, NamesOfCheckpointsOutliveARestart) {
  uint64_t position = 0;
  ASSERT_TRUE(Checkpoint(&position, "read").ok());
  EXPECT_TRUE(server_->Append({IdsMessage({7, 8, 9}, "s")}).status.ok());
  ASSERT_TRUE(Checkpoint(&position, "more").ok());
  Restart();
  ASSERT_EQ(Get("s").checkpoints_size(), 2);
  EXPECT_EQ(Get("s").checkpoints(1).name(), "read");
  EXPECT_EQ(Get("s").checkpoints(1).position(), 300u);
  EXPECT_TRUE(ForkAt("read", "fork").ok());
  EXPECT_EQ(server_->PositionOf("fork"), 300u);
  EXPECT_TRUE(RollbackTo("read").ok());
  EXPECT_EQ(server_->PositionOf("s"), 300u);
  EXPECT_EQ(server_->Generate(GreedyMessage("s", 10)).ids,
            server_->Generate(GreedyMessage("fork", 10)).ids);
  const grpc::Status gone = RollbackTo("more");
  EXPECT_EQ(gone.error_code(), grpc::StatusCode::NOT_FOUND) << "it was rolled back";
  EXPECT_EQ(DetailOf(gone).reason(), v1::ERROR_REASON_CHECKPOINT_NOT_FOUND);
}

TEST_F(HistoryServerTest, ManyMayWaitForOneSession) {
  std::vector<std::thread> calls;
  for (int i = 0; i < 8; ++i) {
    calls.emplace_back([this, i] { EXPECT_TRUE(Fork("fork-" + std::to_string(i)).ok()); });
  }
  uint64_t position = 0;
  EXPECT_TRUE(Checkpoint(&position).ok());
  for (std::thread& call : calls) call.join();
  for (int i = 0; i < 8; ++i) EXPECT_EQ(server_->PositionOf("fork-" + std::to_string(i)), 300u);
}

TEST_F(HistoryServerTest, ACallWhoseDeadlineHasPassedIsOver) {
  const grpc::Status status = Fork("fork", std::chrono::system_clock::now());
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(server_->StillServes());
}

}  // namespace
}  // namespace mneme
