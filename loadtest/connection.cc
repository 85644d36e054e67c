#include "loadtest/connection.h"

#include <grpc/grpc.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

namespace mneme {

Connection Connect(const std::string& server) {
  // Holds the library for the life of the process: were it shut down with the last channel, that
  // would race with threads of its own that still end a call.
  [[maybe_unused]] static const bool held = (grpc_init(), true);
  grpc::ChannelArguments arguments;
  // A proxy of the environment is meant for the web; it would also take calls to this machine.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  const auto channel =
      grpc::CreateCustomChannel(server, grpc::InsecureChannelCredentials(), arguments);
  return {.sessions = v1::SessionService::NewStub(channel),
          .inference = v1::InferenceService::NewStub(channel),
          .admin = v1::AdminService::NewStub(channel)};
}

}  // namespace mneme
