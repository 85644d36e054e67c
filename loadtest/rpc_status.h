#ifndef MNEME_LOADTEST_RPC_STATUS_H_
#define MNEME_LOADTEST_RPC_STATUS_H_

#include <grpcpp/support/status.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace mneme {

// "RESOURCE_EXHAUSTED".
std::string CodeName(const grpc::Status& status);

// As an absl::Status, with what could not be done put in front.
absl::Status FromRpc(const std::string& what, const grpc::Status& status);

// How long the server wants a retry to wait; 1 s if it does not say.
int64_t RetryDelayUs(const grpc::Status& status);

}  // namespace mneme

#endif  // MNEME_LOADTEST_RPC_STATUS_H_
