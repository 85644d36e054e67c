#include "client/connection.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <chrono>

#include "client/interrupter.h"

namespace mneme {
namespace {

std::shared_ptr<grpc::Channel> OpenChannel(const std::string& server) {
  grpc::ChannelArguments arguments;
  // A proxy of the environment is meant for the web; it would also take calls to this machine.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetMaxReceiveMessageSize(-1);
  return grpc::CreateCustomChannel(server, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace

Connection::Connection(const ConnectionOptions& options, Interrupter& interrupter)
    : channel_(OpenChannel(options.server)),
      timeout_s_(options.timeout_s),
      interrupter_(interrupter) {}

Call::Call(const Connection& connection)
    : context_(std::make_unique<grpc::ClientContext>()), interrupter_(connection.interrupter_) {
  if (connection.timeout_s_ > 0) {
    context_->set_deadline(std::chrono::system_clock::now() +
                           std::chrono::microseconds(std::int64_t(connection.timeout_s_ * 1e6)));
  }
  interrupter_.Add(context_.get());
}

Call::~Call() { interrupter_.Remove(context_.get()); }

}  // namespace mneme
