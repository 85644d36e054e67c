// Invariant: after a device error every request gets UNAVAILABLE, health turns NOT_SERVING and the
// process exits with an error (DESIGN §2.11). On CUDA the error is a real one and ends what its
// process can do with CUDA, so that the server runs in a process of its own.

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <utility>

#include "tests/e2e/real_server.h"
#include "tests/engine/backends.h"
#include "tests/engine/failing_backend.h"

namespace mneme {
namespace {

using grpc::health::v1::HealthCheckResponse;

constexpr char kModel[] = "tests/golden/qwen3-hidden-target";

void ExpectUnavailable(const grpc::Status& status) {
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
  EXPECT_EQ(DetailOf(status).reason(), v1::ERROR_REASON_ENGINE_FAILED);
}

// The device fails while a request generates.
void BreakDevice(RealServer& server, std::atomic<bool>& broken) {
  EXPECT_TRUE(server.StillServes());
  grpc::ClientContext context;
  v1::GenerateRequest request = GreedyMessage("", 2000);
  request.mutable_token_ids()->add_ids(1);
  const auto running = server.inference().Generate(&context, request);
  v1::GenerateEvent event;
  EXPECT_TRUE(running->Read(&event));
  broken = true;
  while (running->Read(&event)) EXPECT_FALSE(event.has_finished());
  ExpectUnavailable(running->Finish());
  broken = false;  // it does not come back
}

void BreakDeviceAndWatchHealth(RealServer& server, std::atomic<bool>& broken) {
  grpc::ClientContext context;
  const auto watch = server.health().Watch(&context, grpc::health::v1::HealthCheckRequest());
  HealthCheckResponse health;
  EXPECT_TRUE(watch->Read(&health));
  EXPECT_EQ(health.status(), HealthCheckResponse::SERVING);
  BreakDevice(server, broken);
  EXPECT_TRUE(watch->Read(&health));
  EXPECT_EQ(health.status(), HealthCheckResponse::NOT_SERVING);
  context.TryCancel();
}

std::unique_ptr<Backend> MakeBreakable(BackendKind kind, const std::atomic<bool>* broken) {
  auto backend = *CreateTestBackend(kind, /*cpu_threads=*/1);
  return IsCuda(kind) ? MakeFaultingBackend(std::move(backend), broken)
                      : MakeFailingBackend(std::move(backend), broken);
}

[[noreturn]] void RefuseRequests(BackendKind kind) {
  std::atomic<bool> broken = false;
  {
    RealServer server(kModel, MakeBreakable(kind, &broken));
    BreakDevice(server, broken);
    ExpectUnavailable(server.Create("later"));
    ExpectUnavailable(server.Generate(GreedyMessage("", 1)).status);
    ExpectUnavailable(server.Append({IdsMessage({5}, "later")}).status);
  }
  EndDeathTest(0);
}

// Exits as the server's program would.
[[noreturn]] void ServeUntilItFails(BackendKind kind) {
  StopSignal stop;  // before any thread
  std::atomic<bool> broken = false;
  int exit_code = 0;
  {
    RealServer server(kModel, MakeBreakable(kind, &broken));
    std::thread client([&] { BreakDeviceAndWatchHealth(server, broken); });
    exit_code = server.ServeUntilStopped(stop);
    client.join();
  }
  EndDeathTest(exit_code);
}

class DeviceFaultServerTest : public testing::TestWithParam<BackendKind> {
 protected:
  void SetUp() override {
    testing::FLAGS_gtest_death_test_style = "threadsafe";  // CUDA does not survive a fork
    MNEME_SKIP_WITHOUT_BACKEND(GetParam());
  }
};
INSTANTIATE_TEST_SUITE_P(Backends, DeviceFaultServerTest,
                         testing::Values(BackendKind::kCpuFloat32, BackendKind::kCudaBFloat16),
                         [](const auto& c) { return NameOf(c.param); });

TEST_P(DeviceFaultServerTest, EveryRequestEndsWithUnavailable) {
  EXPECT_EXIT(RefuseRequests(GetParam()), testing::ExitedWithCode(0), "");
}

TEST_P(DeviceFaultServerTest, HealthTurnsNotServingAndTheProcessExitsWithOne) {
  EXPECT_EXIT(ServeUntilItFails(GetParam()), testing::ExitedWithCode(1), "");
}

}  // namespace
}  // namespace mneme
