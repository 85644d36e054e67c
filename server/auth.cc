#include "server/auth.h"

#include "engine/request.h"

namespace mneme {

std::string TenantOf(const grpc::ServerContextBase& context, bool trust_metadata) {
  if (trust_metadata) {
    const auto named = context.client_metadata().find(kTenantMetadata);
    if (named != context.client_metadata().end()) {
      std::string tenant(named->second.data(), named->second.size());
      if (ValidateSessionId(tenant).ok()) return tenant;
    }
  }
  return "default";
}

}  // namespace mneme
