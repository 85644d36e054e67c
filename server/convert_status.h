#ifndef MNEME_SERVER_CONVERT_STATUS_H_
#define MNEME_SERVER_CONVERT_STATUS_H_

// Statuses on the wire: a code, a sentence, and a typed mneme.v1.ErrorDetail.

#include <grpcpp/support/status.h>

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"
#include "mneme/v1/errors.pb.h"

namespace mneme {

// A status about `field` of a request (a path such as "sampling.top_p"; empty: none of them) whose
// detail has `reason`. Not retryable.
absl::Status RequestError(absl::StatusCode code, v1::ErrorReason reason, const std::string& field,
                          const std::string& message);

// INVALID_ARGUMENT, ERROR_REASON_INVALID_FIELD.
absl::Status InvalidField(const std::string& field, const std::string& message);

// `status` with its detail in `grpc-status-details-bin`: that of RequestError, else made from the
// engine's ErrorInfo, else from the code alone.
grpc::Status ToGrpcStatus(const absl::Status& status);

// "OK", "NOT_FOUND", …
std::string StatusName(absl::StatusCode code);

void ToProto(absl::Duration duration, google::protobuf::Duration* proto);
void ToProto(absl::Time time, google::protobuf::Timestamp* proto);

}  // namespace mneme

#endif  // MNEME_SERVER_CONVERT_STATUS_H_
