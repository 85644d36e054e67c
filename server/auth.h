#ifndef MNEME_SERVER_AUTH_H_
#define MNEME_SERVER_AUTH_H_

#include <grpcpp/server_context.h>

#include <string>

namespace mneme {

// The tenant on whose behalf a call is made. Callers are not authenticated, so nothing that they
// say about themselves in their metadata counts: all are the tenant "default".
std::string TenantOf(const grpc::ServerContextBase& context);

}  // namespace mneme

#endif  // MNEME_SERVER_AUTH_H_
