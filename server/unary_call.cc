#include "server/unary_call.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/auth.h"
#include "server/convert_status.h"

namespace mneme {

std::shared_ptr<UnaryCall> UnaryCall::Start(const ServiceContext& context,
                                            grpc::CallbackServerContext& call, std::string rpc,
                                            bool frequent) {
  std::shared_ptr<UnaryCall> unary(new UnaryCall(context, call, std::move(rpc), frequent));
  unary->self_ = unary;
  return unary;
}

UnaryCall::UnaryCall(const ServiceContext& context, const grpc::CallbackServerContext& call,
                     std::string rpc, bool frequent)
    : record_(context, std::move(rpc), TenantOf(call, context.trust_tenant_metadata), frequent),
      deadline_(call.deadline()) {}

grpc::ServerUnaryReactor* UnaryCall::Finish(const absl::Status& status) {
  record_.End(status);
  grpc::ServerUnaryReactor::Finish(ToGrpcStatus(status));
  return this;
}

absl::Status UnaryCall::GaveUp() const {
  if (!gone_) return absl::OkStatus();
  if (std::chrono::system_clock::now() >= deadline_) {
    return absl::DeadlineExceededError("the call's deadline has passed");
  }
  return absl::CancelledError("the client cancelled the call or is gone");
}

absl::Status NotImplemented(const std::string& rpc) {
  return absl::UnimplementedError(absl::StrCat(rpc, " is not implemented in this version"));
}

}  // namespace mneme
