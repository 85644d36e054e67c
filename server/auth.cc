#include "server/auth.h"

namespace mneme {

std::string TenantOf(const grpc::ServerContextBase& context, bool trust_metadata) {
  if (trust_metadata) {
    const auto named = context.client_metadata().find(kTenantMetadata);
    if (named != context.client_metadata().end()) {
      return {named->second.data(), named->second.size()};
    }
  }
  return "default";
}

}  // namespace mneme
