#ifndef MNEME_CLIENT_CONNECTION_H_
#define MNEME_CLIENT_CONNECTION_H_

#include <memory>
#include <string>

namespace grpc {
class ChannelInterface;
class ClientContext;
}  // namespace grpc

namespace mneme {

class Interrupter;

struct ConnectionOptions {
  std::string server = "127.0.0.1:50051";  // host:port
  double timeout_s = 0;                    // of each call; 0: none
};

// The channel to one server. Connects with the first call. Thread-safe.
class Connection {
 public:
  // `interrupter` is borrowed and outlives the connection.
  Connection(const ConnectionOptions& options, Interrupter& interrupter);

  const std::shared_ptr<grpc::ChannelInterface>& channel() const { return channel_; }

 private:
  friend class Call;

  std::shared_ptr<grpc::ChannelInterface> channel_;
  double timeout_s_;
  Interrupter& interrupter_;
};

// The context of one call: carries the connection's timeout, ends with Ctrl-C. Outlives the call.
class Call {
 public:
  explicit Call(const Connection& connection);
  ~Call();
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  grpc::ClientContext* context() { return context_.get(); }

 private:
  std::unique_ptr<grpc::ClientContext> context_;
  Interrupter& interrupter_;
};

}  // namespace mneme

#endif  // MNEME_CLIENT_CONNECTION_H_
