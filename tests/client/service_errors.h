#ifndef MNEME_TESTS_CLIENT_SERVICE_ERRORS_H_
#define MNEME_TESTS_CLIENT_SERVICE_ERRORS_H_

// Statuses as the server gives them, with their details.

#include <grpcpp/support/status.h>

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "mneme/v1/errors.pb.h"

namespace mneme {

inline grpc::Status Error(grpc::StatusCode code, const std::string& message,
                          const v1::ErrorDetail& detail) {
  v1::RpcStatus status;
  status.set_code(code);
  status.set_message(message);
  status.add_details()->PackFrom(detail);
  return {code, message, status.SerializeAsString()};
}

inline grpc::Status NotFound(const std::string& session_id) {
  v1::ErrorDetail detail;
  detail.set_reason(v1::ERROR_REASON_SESSION_NOT_FOUND);
  return Error(grpc::StatusCode::NOT_FOUND, absl::StrCat("no session \"", session_id, "\""),
               detail);
}

// An import goes on there.
inline grpc::Status GoOnAt(uint64_t offset) {
  v1::ErrorDetail detail;
  detail.set_offset(offset);
  return Error(grpc::StatusCode::OUT_OF_RANGE, "it goes on elsewhere", detail);
}

inline grpc::Status Draining() {
  v1::ErrorDetail detail;
  detail.set_reason(v1::ERROR_REASON_DRAINING);
  detail.set_retryable(true);
  detail.mutable_retry_delay()->set_seconds(1);
  detail.mutable_retry_delay()->set_nanos(500'000'000);
  return Error(grpc::StatusCode::UNAVAILABLE, "the server is draining", detail);
}

}  // namespace mneme

#endif  // MNEME_TESTS_CLIENT_SERVICE_ERRORS_H_
