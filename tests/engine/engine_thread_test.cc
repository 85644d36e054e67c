// The engine with its own thread and many clients: every request ends exactly once, whatever
// happens around it (DESIGN §2.8). With MNEME_STRESS_SECONDS set, the stress goes on for so long.

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <mutex>
#include <optional>
#include <random>
#include <thread>

#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/engine/failing_backend.h"
#include "tests/engine/loading/tiny_model.h"
#include "tests/engine/loop_harness.h"

namespace mneme {
namespace {

// A call whose thread waits for its events.
class Client {
 public:
  Client() {
    call_.channel = std::make_shared<RequestChannel>([signal = signal_] {
      std::lock_guard lock(signal->mutex);
      signal->raised = true;
      signal->changed.notify_all();
    });
  }

  const std::shared_ptr<RequestChannel>& channel() const { return call_.channel; }

  // Reads until the request has ended, or `tokens` have come.
  const Call& Wait(size_t tokens = SIZE_MAX) {
    for (call_.Read(); call_.ends == 0 && call_.tokens.size() < tokens; call_.Read()) {
      std::unique_lock lock(signal_->mutex);
      signal_->changed.wait(lock, [this] { return signal_->raised; });
      signal_->raised = false;
    }
    return call_;
  }

 private:
  struct Signal {
    std::mutex mutex;
    std::condition_variable changed;
    bool raised = false;
  };

  const std::shared_ptr<Signal> signal_ = std::make_shared<Signal>();
  Call call_;
};

// Whether sessions are kept on the disk.
class EngineThreadTest : public testing::TestWithParam<bool> {
 protected:
  EngineThreadTest() {
    TinyModel().Write(dir_.path());
    Start();
  }

  // Ends the engine, if there is one, and begins another on what is on the disk.
  void Start() {
    engine_.reset();
    auto backend = MakeFailingBackend(*CreateCpuBackend({.threads = 1}), &broken_);
    ServedModel model = LoadServedModel(dir_.path(), /*with_tokenizer=*/false, *backend);
    engine_ = *Engine::Create({.max_step_tokens = 32, .cache_bytes = 256 << 10}, std::move(backend),
                              std::move(model), clock_, stats_, OpenStore());
  }

  std::optional<SessionStore::Opened> OpenStore() const {
    if (!GetParam()) return std::nullopt;
    const std::filesystem::path data_dir = dir_.path() / "data";
    std::filesystem::create_directory(data_dir);
    return *SessionStore::Open({.data_dir = data_dir.string()});
  }

  // What `start` gives to its callback.
  template <typename T, typename Start>
  static absl::StatusOr<T> Await(const Start& start) {
    auto promise = std::make_shared<std::promise<absl::StatusOr<T>>>();
    start([promise](absl::StatusOr<T> value) { promise->set_value(std::move(value)); });
    return promise->get_future().get();
  }
  absl::StatusOr<SessionInfo> Create(const std::string& id) {
    return Await<SessionInfo>([&](auto done) { engine_->CreateSession({"t", id}, {}, done); });
  }
  absl::StatusOr<SessionInfo> Delete(const std::string& id) {
    return Await<SessionInfo>([&](auto done) { engine_->DeleteSession({"t", id}, done); });
  }
  EngineLoad Load() {
    return *Await<EngineLoad>([&](auto done) { engine_->GetLoad(done); });
  }
  void Generate(Client& client, const std::string& id, GenerateRequest request) {
    request.header.session = {"t", id};
    engine_->Generate(std::move(request), client.channel());
  }
  static GenerateRequest Long() { return GreedyRequest(200, {1, 2}); }

  TemporaryDirectory dir_;
  std::atomic<bool> broken_ = false;
  Clock clock_;
  StatsSink stats_;
  std::unique_ptr<Engine> engine_;
};

INSTANTIATE_TEST_SUITE_P(InMemory, EngineThreadTest, testing::Values(false));
INSTANTIATE_TEST_SUITE_P(OnDisk, EngineThreadTest, testing::Values(true));

TEST_P(EngineThreadTest, DestroyingItEndsEveryRequestOnceWithUnavailable) {
  ASSERT_TRUE(Create("s").ok());
  std::vector<Client> clients(5);
  Generate(clients[0], "s", Long());
  Generate(clients[1], "s", Long());
  Generate(clients[2], "", Long());
  engine_->Append({.header = {.session = {"t", "s"}}}, clients[3].channel());
  Generate(clients[4], "", Long());
  engine_.reset();
  for (Client& client : clients) {
    const Call& call = client.Wait();
    if (call.finished) continue;  // it was quicker
    EXPECT_TRUE(EndedWith(call, absl::StatusCode::kUnavailable, ErrorReason::kDraining));
    // A channel outlives the engine.
    client.channel()->Cancel(absl::CancelledError());
    client.channel()->PushInput({.ids = {1}});
  }
}

TEST_P(EngineThreadTest, DrainLetsRequestsFinishAndRefusesNewOnes) {
  Client running, late;
  Generate(running, "", Long());
  engine_->Drain(absl::Minutes(5));
  EXPECT_TRUE(EndedOk(running.Wait()));
  Generate(late, "", Long());
  EXPECT_TRUE(EndedWith(late.Wait(), absl::StatusCode::kUnavailable, ErrorReason::kDraining));
}

TEST_P(EngineThreadTest, DrainEndsWhatOutlastsItsGrace) {
  ASSERT_TRUE(Create("s").ok());
  Client waiting;  // for input that never comes
  engine_->Append({.header = {.session = {"t", "s"}}}, waiting.channel());
  engine_->Drain(absl::ZeroDuration());
  EXPECT_TRUE(EndedWith(waiting.Wait(), absl::StatusCode::kUnavailable, ErrorReason::kDraining));
}

TEST_P(EngineThreadTest, WhatWasToldIsThereAfterARestartIfItIsKept) {
  ASSERT_TRUE(Create("s").ok());
  ASSERT_TRUE(Create("deleted").ok());
  ASSERT_TRUE(Delete("deleted").ok());
  Client client;
  Generate(client, "s", GreedyRequest(20, {1, 2}));
  EXPECT_TRUE(EndedOk(client.Wait()));
  engine_->Drain(absl::ZeroDuration());
  Start();
  const auto info = Await<SessionInfo>([&](auto done) { engine_->GetSession({"t", "s"}, done); });
  EXPECT_EQ(info.ok(), GetParam());
  if (GetParam()) {
    EXPECT_EQ(info->position, 22u);
  }
  EXPECT_EQ(Load().sessions, GetParam() ? 1 : 0);
}

TEST_P(EngineThreadTest, DrainOfAnIdleEngineReturns) {
  engine_->Drain(absl::Minutes(5));
  EXPECT_EQ(Create("s").status().code(), absl::StatusCode::kUnavailable);
}

TEST_P(EngineThreadTest, ABackendFailureIsReportedOnceAndLatched) {
  std::promise<absl::Status> failed;
  engine_->SetFailureCallback([&](const absl::Status& status) { failed.set_value(status); });
  EXPECT_TRUE(engine_->health().ok());
  broken_ = true;
  Client client, later;
  Generate(client, "", Long());
  EXPECT_TRUE(
      EndedWith(client.Wait(), absl::StatusCode::kUnavailable, ErrorReason::kBackendFailed));
  EXPECT_EQ(failed.get_future().get().code(), absl::StatusCode::kUnavailable);
  broken_ = false;
  Generate(later, "", Long());
  EXPECT_TRUE(EndedWith(later.Wait(), absl::StatusCode::kUnavailable, ErrorReason::kBackendFailed));
  EXPECT_EQ(engine_->health().code(), absl::StatusCode::kUnavailable);
}

// One of many clients that do whatever they like to a few sessions.
class EngineStressTest : public EngineThreadTest {
 protected:
  static constexpr int kClients = 64;
  static constexpr int kOperations = 8;  // of each client, where no time is given

  void RunClient(uint32_t seed, absl::Time until) {
    std::mt19937 random(seed);
    for (int i = 0; i < kOperations || absl::Now() < until; ++i) Operate(random);
  }

  void Operate(std::mt19937& random) {
    const std::string id = "s" + std::to_string(random() % 6);
    switch (random() % 8) {
      case 0:
        Create(id).IgnoreError();
        return;
      case 1:
        if (random() % 4 == 0) Delete(id).IgnoreError();
        return;
      case 2:
        Await<EngineLoad>([&](auto done) { engine_->GetLoad(done); }).IgnoreError();
        return Await<Engine::SessionPage>(
                   [&](auto done) { engine_->ListSessions("t", "", 3, done); })
            .IgnoreError();
      case 3:
      case 4:
        return Append(id, random);
      default:
        return GenerateSome(random() % 4 == 0 ? "" : id, random);
    }
  }

  void Append(const std::string& id, std::mt19937& random) {
    Client client;
    engine_->Append({.header = Header(id, random), .return_logprobs = random() % 2 == 0},
                    client.channel());
    for (uint32_t i = 0; i < 3; ++i) {
      client.channel()->PushInput({.ids = SomeTokens(random)});
    }
    if (random() % 4 == 0) client.channel()->Cancel(absl::CancelledError());
    client.channel()->CloseInput();
    CheckEnd(client.Wait());
  }

  void GenerateSome(const std::string& id, std::mt19937& random) {
    GenerateRequest request = GreedyRequest(random() % 30 + 1, SomeTokens(random));
    request.header = Header(id, random);
    request.learn = random() % 3 != 0;
    const std::string request_id = request.header.request_id;
    Client client;
    Generate(client, id, request);
    if (random() % 4 == 0) {
      client.Wait(3);
      Await<std::monostate>([&](auto done) {
        engine_->Cancel({"t", id}, request_id, done);
      }).IgnoreError();
    }
    CheckEnd(client.Wait());
  }

  static std::vector<int32_t> SomeTokens(std::mt19937& random) {
    const size_t count = random() % 30 + 1;
    return RandomTokens(count, static_cast<uint32_t>(random()), 16);
  }

  static RequestHeader Header(const std::string& id, std::mt19937& random) {
    RequestHeader header = {.session = {"t", id},
                            .request_id = random() % 3 == 0 ? "" : std::to_string(random() % 50)};
    if (random() % 8 == 0) header.deadline = absl::Now() + absl::Milliseconds(random() % 5);
    return header;
  }

  void CheckEnd(const Call& call) {
    EXPECT_EQ(call.ends, 1);
    EXPECT_TRUE(call.end->ok() || !call.finished) << "Finished comes only with OK";
    static const std::vector<absl::StatusCode> possible = {
        absl::StatusCode::kOk,         absl::StatusCode::kCancelled,
        absl::StatusCode::kNotFound,   absl::StatusCode::kDeadlineExceeded,
        absl::StatusCode::kAborted,    absl::StatusCode::kInvalidArgument,  // a request id again
        absl::StatusCode::kOutOfRange, absl::StatusCode::kResourceExhausted};
    EXPECT_NE(std::find(possible.begin(), possible.end(), call.end->code()), possible.end())
        << *call.end;
    ++ended_;
  }

  std::atomic<int> ended_ = 0;
};

INSTANTIATE_TEST_SUITE_P(InMemory, EngineStressTest, testing::Values(false));
INSTANTIATE_TEST_SUITE_P(OnDisk, EngineStressTest, testing::Values(true));

TEST_P(EngineStressTest, ManyClientsDoingAnythingEachGetOneEnd) {
  const char* seconds = std::getenv("MNEME_STRESS_SECONDS");
  const absl::Time until =
      seconds == nullptr ? absl::InfinitePast() : absl::Now() + absl::Seconds(std::atoi(seconds));
  std::vector<std::thread> clients;
  for (uint32_t i = 0; i < kClients; ++i) {
    clients.emplace_back([this, i, until] { RunClient(i, until); });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_GT(ended_, 0);
  for (int i = 0; i < 6; ++i) Delete("s" + std::to_string(i)).IgnoreError();
  const EngineLoad load = Load();
  EXPECT_EQ(load.sessions, 0);
  EXPECT_EQ(load.running_requests, 0);
  EXPECT_EQ(load.device_bytes_used, 0);
  EXPECT_EQ(load.device_bytes_reserved, 0);
}

}  // namespace
}  // namespace mneme
