// A server that is killed at any moment has lost nothing that it said.

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/e2e/program.h"
#include "tests/e2e/real_server.h"
#include "tests/engine/loop_harness.h"
#include "tests/storage/temporary_directory.h"

namespace mneme {
namespace {

constexpr char kName[] = "named";
constexpr char kModel[] = "tests/golden/qwen3-hidden-target";

// Counts what all clients are told, so that the kill comes at a drawn moment of it.
class Moment {
 public:
  void Set(int64_t events) {
    const std::lock_guard lock(mutex_);
    left_ = events;
    changed_.notify_all();
  }
  void Count() {
    const std::lock_guard lock(mutex_);
    if (--left_ == 0) changed_.notify_all();
  }
  // Until so many events have come.
  void Wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return left_ <= 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t left_ = 0;
};

// Works on one session after the other, with requests drawn from its seed, each sent again until it
// is done; an engine of its own, which is never disturbed, says what must come.
class Client {
 public:
  Client(uint32_t number, Moment& moment) : number_(number), moment_(moment), random_(number) {
    BeginSession();
  }

  // Works until the server is gone; if `last`, until one more request has its end.
  void Run(const std::shared_ptr<grpc::Channel>& channel, bool last) {
    sessions_ = v1::SessionService::NewStub(channel);
    inference_ = v1::InferenceService::NewStub(channel);
    if (created_) ExpectNothingLost();
    const int before = requests_;
    while (Advance() && (!last || requests_ == before)) {
    }
  }

  // What follows is the same as on the undisturbed server.
  void ExpectSameContinuation() {
    v1::GenerateRequest request = GreedyMessage(session_, 20);
    request.set_learn(false);
    grpc::ClientContext context;
    const auto stream = inference_->Generate(&context, request);
    v1::GenerateEvent event;
    std::vector<int32_t> ids;
    while (stream->Read(&event)) {
      if (event.has_token()) ids.push_back(static_cast<int32_t>(event.token().id()));
    }
    EXPECT_TRUE(stream->Finish().ok());
    GenerateRequest same = GreedyRequest(20);
    same.learn = false;
    EXPECT_EQ(ids, undisturbed_.Generate("s", same)->TokenIds());
  }

  int requests() const { return requests_; }

 private:
  struct Request {
    bool appends = false;
    std::vector<int32_t> input, output;
  };

  void BeginSession() {
    session_ = absl::StrCat("client-", number_, ".", ++generation_);
    created_ = false;
    told_position_ = 0;
    named_.reset();
    if (generation_ > 1) {
      EXPECT_TRUE(undisturbed_.loop().DeleteSession({"test", "s"}).ok());
    }
    undisturbed_.Create("s");
  }

  // One call; false if the server is gone.
  bool Advance() {
    if (!created_) return Create();
    if (deleting_) return Delete();
    if (fork_) return Fork();
    if (naming_) return NameCheckpoint();
    if (rolling_back_) return RollBack();
    if (random_() % 16 == 0) return Checkpoint();
    if (!request_ && random_() % 32 == 0) return Fork();
    if (!request_ && random_() % 16 == 0) return named_ ? RollBack() : NameCheckpoint();
    if (!request_ && undisturbed_.Info("s").position > 600) return Delete();
    if (!request_) Draw();
    const grpc::Status status = request_->appends ? Append() : Generate();
    if (Gone(status)) return false;
    EXPECT_TRUE(status.ok()) << session_ << ": " << status.error_message();
    request_.reset();
    ++requests_;
    return status.ok();
  }

  static bool Gone(const grpc::Status& status) {
    return status.error_code() == grpc::StatusCode::UNAVAILABLE;
  }

  bool Create() {
    grpc::ClientContext context;
    v1::CreateSessionRequest request;
    request.set_session_id(session_);
    v1::Session session;
    const grpc::Status status = sessions_->CreateSession(&context, request, &session);
    if (Gone(status)) return false;
    // The first try may have come through and its answer not.
    created_ = status.ok() || status.error_code() == grpc::StatusCode::ALREADY_EXISTS;
    EXPECT_TRUE(created_) << status.error_message();
    moment_.Count();
    return created_;
  }

  bool Delete() {
    deleting_ = true;
    grpc::ClientContext context;
    v1::DeleteSessionRequest request;
    request.set_session_id(session_);
    v1::DeleteSessionResponse response;
    const grpc::Status status = sessions_->DeleteSession(&context, request, &response);
    if (Gone(status)) return false;
    EXPECT_TRUE(status.ok() || status.error_code() == grpc::StatusCode::NOT_FOUND);
    deleting_ = false;
    BeginSession();
    return true;
  }

  // Goes on in a fork, which the session's end does not touch.
  bool Fork() {
    if (!fork_) fork_ = absl::StrCat("client-", number_, ".", ++generation_);
    grpc::ClientContext context;
    v1::ForkSessionRequest request;
    request.set_session_id(session_);
    request.set_new_session_id(*fork_);
    v1::Session session;
    const grpc::Status status = sessions_->ForkSession(&context, request, &session);
    if (Gone(status)) return false;
    // The first try may have come through and its answer not.
    EXPECT_TRUE(status.ok() || status.error_code() == grpc::StatusCode::ALREADY_EXISTS)
        << status.error_message();
    session_ = *std::exchange(fork_, std::nullopt);
    named_.reset();  // a fork inherits no names
    moment_.Count();
    return true;
  }

  // Takes a checkpoint, of this name.
  grpc::Status WriteCheckpoint(const std::string& name) {
    grpc::ClientContext context;
    v1::CheckpointSessionRequest request;
    request.set_session_id(session_);
    request.set_name(name);
    v1::CheckpointSessionResponse response;
    grpc::Status status = sessions_->CheckpointSession(&context, request, &response);
    EXPECT_TRUE(status.ok() || Gone(status)) << status.error_message();
    return status;
  }
  bool Checkpoint() { return WriteCheckpoint("").ok(); }

  bool NameCheckpoint() {
    naming_ = true;
    if (!WriteCheckpoint(kName).ok()) return false;
    naming_ = false;
    named_ = undisturbed_.Info("s").position;
    moment_.Count();
    return true;
  }

  // To the checkpoint that has the name, which it keeps.
  bool RollBack() {
    rolling_back_ = true;
    told_position_ = std::min(told_position_, *named_);
    grpc::ClientContext context;
    v1::RollbackSessionRequest request;
    request.set_session_id(session_);
    request.set_checkpoint(kName);
    v1::Session session;
    const grpc::Status status = sessions_->RollbackSession(&context, request, &session);
    if (Gone(status)) return false;
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(session.position(), *named_);
    const auto position = static_cast<int64_t>(*named_);
    EXPECT_TRUE(undisturbed_.loop().RollbackSession({"test", "s"}, position).ok());
    rolling_back_ = false;
    moment_.Count();
    return status.ok();
  }

  void Draw() {
    request_ = Request();
    request_->appends = random_() % 2 == 0;
    request_->input = RandomTokens(1 + random_() % (request_->appends ? 60 : 8),
                                   static_cast<uint32_t>(random_()));
    if (request_->appends) {
      EXPECT_TRUE(EndedOk(*undisturbed_.Append("s", request_->input)));
    } else {
      const auto call = undisturbed_.Generate(
          "s", GreedyRequest(1 + static_cast<int64_t>(random_() % 12), request_->input));
      EXPECT_TRUE(EndedOk(*call));
      request_->output = call->TokenIds();
    }
  }

  std::string request_id() const { return absl::StrCat("request-", requests_); }

  grpc::Status Append() {
    grpc::ClientContext context;
    const auto stream = inference_->Append(&context);
    v1::AppendRequest message = IdsMessage(request_->input, session_);
    message.set_request_id(request_id());
    stream->Write(message);
    stream->WritesDone();
    v1::AppendProgress progress;
    while (stream->Read(&progress)) {
      told_position_ = progress.position();
      moment_.Count();
    }
    return stream->Finish();
  }

  grpc::Status Generate() {
    grpc::ClientContext context;
    v1::GenerateRequest request =
        GreedyMessage(session_, static_cast<uint32_t>(request_->output.size()));
    request.set_request_id(request_id());
    for (const int32_t id : request_->input) {
      request.mutable_token_ids()->add_ids(static_cast<uint32_t>(id));
    }
    const auto stream = inference_->Generate(&context, request);
    v1::GenerateEvent event;
    size_t told = 0;
    const uint64_t end = undisturbed_.Info("s").position;
    while (stream->Read(&event)) {
      if (event.has_token()) {
        EXPECT_EQ(static_cast<int32_t>(event.token().id()), request_->output.at(told++));
        told_position_ = end - request_->output.size() + told;
      }
      moment_.Count();
    }
    return stream->Finish();
  }

  void ExpectNothingLost() {
    grpc::ClientContext context;
    v1::GetSessionRequest request;
    request.set_session_id(session_);
    v1::Session session;
    const grpc::Status status = sessions_->GetSession(&context, request, &session);
    if (deleting_ && status.error_code() == grpc::StatusCode::NOT_FOUND) return;
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_GE(session.position(), told_position_);
    if (!named_) return;
    ASSERT_EQ(session.checkpoints_size(), 1);
    EXPECT_EQ(session.checkpoints(0).position(), *named_);
  }

  const uint32_t number_;
  Moment& moment_;
  std::mt19937 random_;
  LoopHarness undisturbed_{kModel};
  std::string session_;
  int generation_ = 0;
  int requests_ = 0;
  bool created_ = false;
  bool deleting_ = false;                       // it was asked for, and not answered
  std::optional<std::string> fork_;             // likewise: its id
  bool naming_ = false, rolling_back_ = false;  // likewise
  std::optional<uint64_t> named_;               // where the session's checkpoint kName was taken
  uint64_t told_position_ = 0;
  std::optional<Request> request_;  // sent, and not done
  std::unique_ptr<v1::SessionService::Stub> sessions_;
  std::unique_ptr<v1::InferenceService::Stub> inference_;
};

// What the server promises.
class KillTest : public ::testing::TestWithParam<std::string> {
 protected:
  static constexpr uint32_t kClients = 4;

  KillTest() {
    for (uint32_t i = 0; i < kClients; ++i)
      clients_.push_back(std::make_unique<Client>(i, moment_));
  }

  void Start() {
    server_ = std::make_unique<Program>(
        MNEME_SERVER_PROGRAM,
        std::vector<std::string>{absl::StrCat("--model=", kModel), "--port=0", "--metrics_port=0",
                                 "--threads=1", "--cache_bytes=64MiB", "--max_step_tokens=64",
                                 "--log_level=error", "--data_dir=" + (directory_ / "data"),
                                 "--durability=" + GetParam(), "--checkpoint_tokens=50",
                                 "--port_file=" + (directory_ / "ports")});
    const std::string line = server_->ReadUntil("listening on");
    ASSERT_NE(line.find("listening on"), std::string::npos) << line;
    int port = 0;
    std::ifstream(directory_ / "ports") >> port;
    channel_ =
        grpc::CreateChannel(absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials());
  }

  std::vector<std::thread> RunClients(bool last) {
    std::vector<std::thread> threads;
    for (const auto& client : clients_) {
      threads.emplace_back([this, &client, last] {
        client->Run(channel_, last);
        moment_.Set(0);
      });
    }
    return threads;
  }

  Moment moment_;
  const TemporaryDirectory directory_;
  std::vector<std::unique_ptr<Client>> clients_;
  std::unique_ptr<Program> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

// Both survive the end of the process.
INSTANTIATE_TEST_SUITE_P(All, KillTest, ::testing::Values("sync", "async"),
                         [](const auto& parameter) { return parameter.param; });

TEST_P(KillTest, NothingToldIsLostAndTheSameTokensFollow) {
  const char* const kills_wanted = std::getenv("MNEME_KILLS");
  const int all_kills = kills_wanted == nullptr ? 20 : std::atoi(kills_wanted);
  const int kills = GetParam() == "sync" ? all_kills : all_kills / 4;
  std::mt19937 random(5);
  for (int kill = 0; kill < kills && !HasFailure(); ++kill) {
    ASSERT_NO_FATAL_FAILURE(Start());
    moment_.Set(1 + static_cast<int64_t>(random() % 150));
    std::vector<std::thread> threads = RunClients(/*last=*/false);
    moment_.Wait();
    server_->Signal(SIGKILL);
    EXPECT_EQ(server_->Wait(), -SIGKILL);
    for (std::thread& thread : threads) thread.join();
  }
  ASSERT_NO_FATAL_FAILURE(Start());
  for (std::thread& thread : RunClients(/*last=*/true)) thread.join();
  for (const auto& client : clients_) client->ExpectSameContinuation();
  server_->Signal(SIGTERM);
  EXPECT_EQ(server_->Wait(), 0);

  ASSERT_NO_FATAL_FAILURE(Start());
  int requests = 0;
  for (const auto& client : clients_) {
    client->Run(channel_, /*last=*/true);
    client->ExpectSameContinuation();
    requests += client->requests();
  }
  std::printf("%d kills, %d requests done\n", kills, requests);
}

}  // namespace
}  // namespace mneme
