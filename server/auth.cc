#include "server/auth.h"

namespace mneme {

std::string TenantOf(const grpc::ServerContextBase& /*context*/) { return "default"; }

}  // namespace mneme
