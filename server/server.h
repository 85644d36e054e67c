#ifndef MNEME_SERVER_SERVER_H_
#define MNEME_SERVER_SERVER_H_

#include <grpcpp/server.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/admin_service.h"
#include "server/call_count.h"
#include "server/inference_service.h"
#include "server/service_context.h"
#include "server/session_service.h"

namespace mneme {

// The gRPC side: the services of mneme.v1, standard health (for "" and each of them) and
// reflection, on one port. Thread-safe.
class Server {
 public:
  // Listens on host:port (0: any free port) and is SERVING from its return on. UNAVAILABLE if the
  // address cannot be listened on.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const std::string& host, int port,
                                                       const ServiceContext& context);

  int port() const { return port_; }

  // What health answers. NOT_SERVING also shows in GetLoad as draining.
  void SetServing(bool serving);

  // Waits up to `grace` for calls to end; those that come meanwhile are still answered, by a
  // drained engine with UNAVAILABLE. Then closes all connections, which is UNAVAILABLE to the
  // callers of what has not ended. Returns when all calls have ended. The engine must still run, or
  // have ended its requests.
  void Shutdown(absl::Duration grace);

 private:
  explicit Server(const ServiceContext& context);

  CallCount calls_;
  const ServiceContext context_;
  SessionService sessions_;
  InferenceService inference_;
  AdminService admin_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
};

}  // namespace mneme

#endif  // MNEME_SERVER_SERVER_H_
