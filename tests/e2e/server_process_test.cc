// The program mneme-server itself: how it starts, refuses and stops.

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "tests/e2e/program.h"
#include "tests/e2e/real_server.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;

constexpr char kModel[] = "--model=tests/golden/qwen3-hidden-target";

class ServerProcessTest : public ::testing::Test {
 protected:
  ServerProcessTest() {
    std::string pattern = std::filesystem::temp_directory_path() / "mneme-process-test-XXXXXX";
    dir_ = mkdtemp(pattern.data());
  }
  ~ServerProcessTest() override { std::filesystem::remove_all(dir_); }

  // Starts the server on free ports and waits until it is ready.
  std::unique_ptr<Program> Start(std::vector<std::string> arguments = {}) {
    arguments.insert(arguments.end(),
                     {kModel, "--port=0", "--metrics_port=0", "--threads=1", "--cache_bytes=64MiB",
                      "--port_file=" + (dir_ / "ports").string()});
    auto program = std::make_unique<Program>(MNEME_SERVER_PROGRAM, arguments);
    EXPECT_THAT(program->ReadUntil("listening on"), HasSubstr("listening on 127.0.0.1:"));
    int port = 0;
    std::ifstream(dir_ / "ports") >> port >> metrics_port_;
    channel_ =
        grpc::CreateChannel(absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials());
    return program;
  }

  std::filesystem::path dir_;
  int metrics_port_ = 0;
  std::shared_ptr<grpc::Channel> channel_;
};

TEST_F(ServerProcessTest, SigtermEndsRunningStreamsWithAStatusAndExitsWithZero) {
  const auto program = Start({"--drain_seconds=0"});
  EXPECT_GT(metrics_port_, 0);
  const auto inference = v1::InferenceService::NewStub(channel_);
  grpc::ClientContext context;
  v1::GenerateRequest request = GreedyMessage("", 4000);
  request.mutable_token_ids()->add_ids(1);
  const auto stream = inference->Generate(&context, request);
  v1::GenerateEvent event;
  ASSERT_TRUE(stream->Read(&event));
  program->Signal(SIGTERM);
  while (stream->Read(&event)) {
  }
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
  EXPECT_EQ(DetailOf(status).reason(), v1::ERROR_REASON_DRAINING);
  EXPECT_EQ(program->Wait(), 0);
}

TEST_F(ServerProcessTest, SigtermLetsShortStreamsEndByThemselves) {
  const auto program = Start({"--drain_seconds=60"});
  const auto inference = v1::InferenceService::NewStub(channel_);
  grpc::ClientContext context;
  v1::GenerateRequest request = GreedyMessage("", 50);
  request.mutable_token_ids()->add_ids(1);
  const auto stream = inference->Generate(&context, request);
  v1::GenerateEvent event;
  ASSERT_TRUE(stream->Read(&event));
  program->Signal(SIGTERM);
  while (stream->Read(&event)) {
  }
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_TRUE(event.has_finished());
  EXPECT_EQ(program->Wait(), 0);
}

TEST_F(ServerProcessTest, HealthTurnsNotServingWhileItDrains) {
  const auto program = Start({"--drain_seconds=600"});
  const auto health = grpc::health::v1::Health::NewStub(channel_);
  const auto inference = v1::InferenceService::NewStub(channel_);
  grpc::ClientContext append_context;
  const auto append = inference->Append(&append_context);  // holds the drain up
  grpc::ClientContext create_context;
  v1::CreateSessionRequest create;
  create.set_session_id("s");
  v1::Session session;
  ASSERT_TRUE(
      v1::SessionService::NewStub(channel_)->CreateSession(&create_context, create, &session).ok());
  ASSERT_TRUE(append->Write(IdsMessage({1}, "s")));
  v1::AppendProgress progress;
  ASSERT_TRUE(append->Read(&progress));

  grpc::ClientContext context;
  const auto watch = health->Watch(&context, grpc::health::v1::HealthCheckRequest());
  grpc::health::v1::HealthCheckResponse response;
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::SERVING);
  program->Signal(SIGTERM);
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::NOT_SERVING);
  context.TryCancel();
  append->WritesDone();
  EXPECT_TRUE(append->Finish().ok());
  EXPECT_EQ(program->Wait(), 0);
}

TEST_F(ServerProcessTest, AWrongSetUpIsOneClearLineAndExitCodeOne) {
  std::ofstream(dir_ / "config.json") << "{";
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"--model=/nonexistent"}, "no model directory"},
      {{"--model=" + dir_.string()}, "config.json"},
      {{kModel, "--backend=cuda", "--cuda_device=1000"}, "no CUDA"},  // library, driver or device
      {{"--random_weights=qwen3-9000b"}, "no named shape"},
      {{kModel, "--turn_format=chatml"}, "tokenizer"},
      {{kModel, "--cache_bytes=1"}, "cache_bytes"},
      {{kModel, "--metrics_port=0", "--host=256.0.0.1"}, "cannot listen"},
      {{}, "--model"}};
  for (const auto& [arguments, message] : cases) {
    Program program(MNEME_SERVER_PROGRAM, arguments);
    const std::string line = program.ReadUntil("mneme-server: ");
    EXPECT_THAT(line, HasSubstr("mneme-server: "));
    EXPECT_THAT(line, HasSubstr(message));
    EXPECT_EQ(program.Wait(), 1) << message;
  }
}

TEST_F(ServerProcessTest, ADataDirectoryServesOneServer) {
  const std::string data_dir = "--data_dir=" + (dir_ / "data").string();
  const auto first = Start({data_dir});
  Program second(MNEME_SERVER_PROGRAM, {kModel, data_dir, "--port=0", "--metrics_port=0"});
  EXPECT_THAT(second.ReadUntil("mneme-server: "), HasSubstr("in use by another server"));
  EXPECT_EQ(second.Wait(), 1);
  first->Signal(SIGINT);
  EXPECT_EQ(first->Wait(), 0);
}

}  // namespace
}  // namespace mneme
