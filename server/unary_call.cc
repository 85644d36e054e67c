#include "server/unary_call.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/auth.h"
#include "server/convert_status.h"

namespace mneme {

std::shared_ptr<UnaryCall> UnaryCall::Start(const ServiceContext& context,
                                            grpc::CallbackServerContext& call, std::string rpc,
                                            bool frequent) {
  return std::shared_ptr<UnaryCall>(new UnaryCall(context, call, std::move(rpc), frequent));
}

UnaryCall::UnaryCall(const ServiceContext& context, grpc::CallbackServerContext& call,
                     std::string rpc, bool frequent)
    : record_(context, std::move(rpc), TenantOf(call, context.trust_tenant_metadata), frequent),
      reactor_(call.DefaultReactor()) {}

grpc::ServerUnaryReactor* UnaryCall::Finish(const absl::Status& status) {
  record_.End(status);
  grpc::ServerUnaryReactor* const reactor = reactor_;
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

absl::Status NotImplemented(const std::string& rpc) {
  return absl::UnimplementedError(absl::StrCat(rpc, " is not implemented in this version"));
}

}  // namespace mneme
