#include "client/status_text.h"

#include <grpcpp/support/status.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "mneme/v1/errors.pb.h"

namespace mneme {
namespace {

std::string ReasonName(v1::ErrorReason reason) {
  return std::string(absl::StripPrefix(v1::ErrorReason_Name(reason), "ERROR_REASON_"));
}

std::vector<std::string> Describe(const v1::ErrorDetail& detail) {
  std::vector<std::string> parts;
  if (detail.reason() != v1::ERROR_REASON_UNSPECIFIED) {
    parts.push_back(absl::StrCat("reason ", ReasonName(detail.reason())));
  }
  if (!detail.field().empty()) parts.push_back(absl::StrCat("field ", detail.field()));
  if (detail.has_position()) parts.push_back(absl::StrCat("position ", detail.position()));
  if (detail.has_version()) parts.push_back(absl::StrCat("version ", detail.version()));
  if (detail.has_offset()) parts.push_back(absl::StrCat("offset ", detail.offset()));
  if (detail.has_owner()) parts.push_back(absl::StrCat("owner ", detail.owner()));
  if (detail.has_retry_delay()) {
    const google::protobuf::Duration& delay = detail.retry_delay();
    parts.push_back(absl::StrFormat("retry after %.3g s",
                                    static_cast<double>(delay.seconds()) + 1e-9 * delay.nanos()));
  } else if (detail.retryable()) {
    parts.emplace_back("retryable");
  }
  return parts;
}

std::optional<v1::ErrorDetail> DetailOf(const grpc::Status& status) {
  v1::RpcStatus details;
  if (!details.ParseFromString(status.error_details())) return std::nullopt;
  for (const google::protobuf::Any& any : details.details()) {
    v1::ErrorDetail detail;
    if (any.UnpackTo(&detail)) return detail;
  }
  return std::nullopt;
}

}  // namespace

absl::Status FromRpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  std::string message = status.error_message();
  const std::optional<v1::ErrorDetail> detail = DetailOf(status);
  const std::vector<std::string> parts = detail ? Describe(*detail) : std::vector<std::string>();
  if (!parts.empty()) absl::StrAppend(&message, " (", absl::StrJoin(parts, ", "), ")");
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), message);
}

std::optional<uint64_t> OffsetOf(const grpc::Status& status) {
  const std::optional<v1::ErrorDetail> detail = DetailOf(status);
  if (!detail || !detail->has_offset()) return std::nullopt;
  return detail->offset();
}

std::string StatusText(const absl::Status& status) {
  std::string message(status.message());
  std::replace(message.begin(), message.end(), '\n', ' ');
  return absl::StrCat(absl::StatusCodeToString(status.code()), ": ", message);
}

}  // namespace mneme
