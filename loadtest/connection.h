#ifndef MNEME_LOADTEST_CONNECTION_H_
#define MNEME_LOADTEST_CONNECTION_H_

#include <memory>
#include <string>

#include "mneme/v1/admin.grpc.pb.h"
#include "mneme/v1/inference.grpc.pb.h"
#include "mneme/v1/sessions.grpc.pb.h"

namespace mneme {

// One channel to a server, which connects with the first call. Thread-safe.
struct Connection {
  std::unique_ptr<v1::SessionService::Stub> sessions;
  std::unique_ptr<v1::InferenceService::Stub> inference;
  std::unique_ptr<v1::AdminService::Stub> admin;
};

// `server` is host:port.
Connection Connect(const std::string& server);

}  // namespace mneme

#endif  // MNEME_LOADTEST_CONNECTION_H_
