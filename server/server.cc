#include "server/server.h"

#include <grpc/grpc.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server_builder.h>

#include "absl/strings/str_cat.h"
#include "server/address.h"

namespace mneme {
namespace {

constexpr int kMaxStreamsPerConnection = 1024;
// A connection is asked for a sign of life after a minute of silence, so that the streams of a host
// that has vanished end; clients may ask the same every ten seconds.
constexpr int kKeepaliveMs = 60'000;
constexpr int kKeepaliveTimeoutMs = 20'000;
constexpr int kMinClientPingMs = 10'000;

ServiceContext WithCalls(ServiceContext context, CallCount& calls) {
  context.calls = &calls;
  return context;
}

void SetLimits(grpc::ServerBuilder& builder, int64_t max_message_bytes) {
  builder.SetMaxReceiveMessageSize(static_cast<int>(max_message_bytes));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreamsPerConnection);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             kMinClientPingMs);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // a second server must not share it
}

}  // namespace

Server::Server(const ServiceContext& context)
    : context_(WithCalls(context, calls_)),
      sessions_(context_),
      inference_(context_),
      admin_(context_) {}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const std::string& host, int port,
                                                      const ServiceContext& context) {
  auto server = std::unique_ptr<Server>(new Server(context));
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  SetLimits(builder, context.max_message_bytes);
  const std::string address = JoinHostPort(host, port);
  builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &server->port_);
  builder.RegisterService(&server->sessions_);
  builder.RegisterService(&server->inference_);
  builder.RegisterService(&server->admin_);
  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr || server->port_ == 0) {
    return absl::UnavailableError(
        absl::StrCat("gRPC cannot listen on ", address, ": wrong address, or the port is in use"));
  }
  server->SetServing(true);
  return server;
}

void Server::SetServing(bool serving) {
  if (!serving) admin_.SetDraining();
  grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService();
  for (const char* service :
       {"", v1::SessionService::service_full_name(), v1::InferenceService::service_full_name(),
        v1::AdminService::service_full_name()}) {
    health->SetServingStatus(service, serving);
  }
}

void Server::Shutdown(absl::Duration grace) {
  calls_.AwaitNone(grace);
  // A call that comes once gRPC has begun to shut down gets CANCELLED from it. So the connections
  // go first, which callers see as UNAVAILABLE, and then there is no time left for a call to come.
  grpc_server_cancel_all_calls(server_->c_server());
  server_->Shutdown(absl::ToChronoTime(absl::UnixEpoch()));
  server_->Wait();
}

}  // namespace mneme
