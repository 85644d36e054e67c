#include "tests/server/server_fixture.h"

#include "absl/strings/str_cat.h"

namespace mneme {

v1::ErrorDetail DetailOf(const grpc::Status& status) {
  v1::RpcStatus rpc_status;
  v1::ErrorDetail detail;
  EXPECT_TRUE(rpc_status.ParseFromString(status.error_details()));
  EXPECT_EQ(rpc_status.code(), status.error_code());
  EXPECT_EQ(rpc_status.message(), status.error_message());
  EXPECT_EQ(rpc_status.details_size(), 1);
  if (rpc_status.details_size() == 1) {
    EXPECT_TRUE(rpc_status.details(0).UnpackTo(&detail));
  }
  return detail;
}

ServerFixture::ServerFixture(bool trust_tenant_metadata) {
  const ServiceContext context = {
      .engine = engine_,
      .metrics = metrics_,
      .logger = logger_,
      .clock = clock_,
      .codec = {nullptr, nullptr, engine_.config().vocab_size},
      .model = {.name = "toy", .dtype = "float32", .config = engine_.config()},
      .backend = "cpu",
      .max_message_bytes = kMaxMessageBytes,
      .trust_tenant_metadata = trust_tenant_metadata,
      .start_time = clock_.Now(),
  };
  auto server = Server::Start("127.0.0.1", 0, context);
  if (!server.ok()) throw std::runtime_error(server.status().ToString());
  server_ = *std::move(server);
  channel_ = grpc::CreateChannel(absl::StrCat("127.0.0.1:", server_->port()),
                                 grpc::InsecureChannelCredentials());
  sessions_ = v1::SessionService::NewStub(channel_);
  inference_ = v1::InferenceService::NewStub(channel_);
  admin_ = v1::AdminService::NewStub(channel_);
  health_ = grpc::health::v1::Health::NewStub(channel_);
}

ServerFixture::~ServerFixture() {
  engine_.Drain(absl::ZeroDuration());
  server_->Shutdown(absl::Seconds(5));
}

grpc::Status ServerFixture::CreateSession(const std::string& id) {
  grpc::ClientContext context;
  v1::CreateSessionRequest request;
  request.set_session_id(id);
  v1::Session session;
  return sessions_->CreateSession(&context, request, &session);
}

bool ServerFixture::StillServes() {
  CreateSession("alive");
  grpc::ClientContext context;
  v1::GetSessionRequest request;
  request.set_session_id("alive");
  v1::Session session;
  return sessions_->GetSession(&context, request, &session).ok() && session.session_id() == "alive";
}

}  // namespace mneme
