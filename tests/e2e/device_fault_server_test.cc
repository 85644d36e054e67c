// Invariant: after a CUDA error every request gets UNAVAILABLE, health turns NOT_SERVING and the
// process exits with an error (DESIGN §2.11). The error is real and ends what its process can do
// with CUDA, so that the server runs in a process of its own.

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <thread>

#include "tests/e2e/real_server.h"
#include "tests/engine/backends.h"
#include "tests/engine/failing_backend.h"

namespace mneme {
namespace {

using grpc::health::v1::HealthCheckResponse;

void ExpectUnavailable(const grpc::Status& status) {
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
}

// A client of a server whose device fails while it generates.
void UseServer(RealServer& server, std::atomic<bool>& broken) {
  EXPECT_TRUE(server.StillServes());
  grpc::ClientContext watch_context, context;
  const auto watch = server.health().Watch(&watch_context, grpc::health::v1::HealthCheckRequest());
  HealthCheckResponse health;
  EXPECT_TRUE(watch->Read(&health));
  EXPECT_EQ(health.status(), HealthCheckResponse::SERVING);
  v1::GenerateRequest request = GreedyMessage("", 4000);
  request.mutable_token_ids()->add_ids(1);
  const auto running = server.inference().Generate(&context, request);
  v1::GenerateEvent event;
  EXPECT_TRUE(running->Read(&event));
  broken = true;
  while (running->Read(&event)) EXPECT_FALSE(event.has_finished());
  const grpc::Status status = running->Finish();
  ExpectUnavailable(status);
  EXPECT_EQ(DetailOf(status).reason(), v1::ERROR_REASON_ENGINE_FAILED);
  broken = false;
  ExpectUnavailable(server.Create("later"));
  ExpectUnavailable(server.Generate(request).status);
  EXPECT_TRUE(watch->Read(&health));
  EXPECT_EQ(health.status(), HealthCheckResponse::NOT_SERVING);
  watch_context.TryCancel();
}

// Exits as the server's program would; with 0 if an expectation did not hold.
[[noreturn]] void RunServer() {
  StopSignal stop;  // before any thread
  std::atomic<bool> broken = false;
  int exit_code = 0;
  {
    RealServer server(
        "tests/golden/qwen3-hidden-target",
        MakeFaultingBackend(*CreateTestBackend(BackendKind::kCudaBFloat16, 1), &broken));
    std::thread client([&] { UseServer(server, broken); });
    exit_code = server.ServeUntilStopped(stop);
    client.join();
  }
  std::exit(testing::Test::HasFailure() ? 0 : exit_code);
}

TEST(CudaDeviceFaultServerTest, EndsWithUnavailableNotServingAndAnExitCode) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";  // CUDA does not survive a fork
  MNEME_SKIP_WITHOUT_BACKEND(BackendKind::kCudaBFloat16);
  EXPECT_EXIT(RunServer(), testing::ExitedWithCode(1), "");
}

}  // namespace
}  // namespace mneme
