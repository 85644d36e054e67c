#ifndef MNEME_SERVER_AUTH_H_
#define MNEME_SERVER_AUTH_H_

#include <grpcpp/server_context.h>

#include <string>

namespace mneme {

// The metadata key under which a trusted front names the tenant.
inline constexpr char kTenantMetadata[] = "mneme-tenant";

// The tenant on whose behalf a call is made. Callers are not authenticated, so what they say about
// themselves counts only with `trust_metadata` (--trust_tenant_metadata): where nobody but a front
// that sets kTenantMetadata itself can reach this server. Otherwise, and where it is not set, it is
// the tenant "default". A name that is none (ValidateTenant) is the engine's to refuse.
std::string TenantOf(const grpc::ServerContextBase& context, bool trust_metadata);

}  // namespace mneme

#endif  // MNEME_SERVER_AUTH_H_
