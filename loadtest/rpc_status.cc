#include "loadtest/rpc_status.h"

#include "absl/strings/str_cat.h"
#include "mneme/v1/errors.pb.h"

namespace mneme {
namespace {

constexpr int64_t kDefaultRetryDelayUs = 1'000'000;

absl::StatusCode CodeOf(const grpc::Status& status) {
  return static_cast<absl::StatusCode>(status.error_code());
}

}  // namespace

std::string CodeName(const grpc::Status& status) {
  return absl::StatusCodeToString(CodeOf(status));
}

absl::Status FromRpc(const std::string& what, const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(CodeOf(status), absl::StrCat(what, ": ", status.error_message()));
}

int64_t RetryDelayUs(const grpc::Status& status) {
  v1::RpcStatus rpc_status;
  if (!rpc_status.ParseFromString(status.error_details())) return kDefaultRetryDelayUs;
  for (const google::protobuf::Any& any : rpc_status.details()) {
    v1::ErrorDetail detail;
    if (!any.UnpackTo(&detail) || !detail.has_retry_delay()) continue;
    return detail.retry_delay().seconds() * 1'000'000 + detail.retry_delay().nanos() / 1000;
  }
  return kDefaultRetryDelayUs;
}

}  // namespace mneme
