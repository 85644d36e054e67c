#ifndef MNEME_TESTS_SERVER_SERVER_FIXTURE_H_
#define MNEME_TESTS_SERVER_SERVER_FIXTURE_H_

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "grpc/health/v1/health.grpc.pb.h"
#include "mneme/v1/admin.grpc.pb.h"
#include "mneme/v1/errors.pb.h"
#include "mneme/v1/inference.grpc.pb.h"
#include "mneme/v1/sessions.grpc.pb.h"
#include "server/metrics.h"
#include "server/server.h"
#include "tests/server/fake_engine.h"

namespace mneme {

// The detail of an error; fails the test if there is none.
v1::ErrorDetail DetailOf(const grpc::Status& status);

// A server on a free port over a FakeEngine, and stubs that talk to it.
class ServerFixture : public ::testing::Test {
 protected:
  static constexpr int64_t kMaxMessageBytes = 1 << 20;

  explicit ServerFixture(bool trust_tenant_metadata = false);
  ~ServerFixture() override;

  // A unary call on a session that exists; true if the server answers as it should.
  bool StillServes();
  grpc::Status CreateSession(const std::string& id);

  Clock clock_;
  Metrics metrics_{clock_};
  Logger logger_{spdlog::level::off, LogFormat::kText};
  FakeEngine engine_;
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::SessionService::Stub> sessions_;
  std::unique_ptr<v1::InferenceService::Stub> inference_;
  std::unique_ptr<v1::AdminService::Stub> admin_;
  std::unique_ptr<grpc::health::v1::Health::Stub> health_;
};

}  // namespace mneme

#endif  // MNEME_TESTS_SERVER_SERVER_FIXTURE_H_
