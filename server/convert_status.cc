#include "server/convert_status.h"

#include <algorithm>

#include "absl/strings/cord.h"
#include "base/check.h"
#include "engine/error.h"

namespace mneme {
namespace {

constexpr char kDetailUrl[] = "type.googleapis.com/mneme.v1.ErrorDetail";
constexpr absl::Duration kDefaultRetryDelay = absl::Seconds(1);

// For statuses that come without a reason: what their code says.
v1::ErrorReason ReasonOf(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
      return v1::ERROR_REASON_INVALID_FIELD;
    case absl::StatusCode::kNotFound:
      return v1::ERROR_REASON_SESSION_NOT_FOUND;
    case absl::StatusCode::kAlreadyExists:
      return v1::ERROR_REASON_SESSION_EXISTS;
    case absl::StatusCode::kOutOfRange:
      return v1::ERROR_REASON_CONTEXT_EXCEEDED;
    case absl::StatusCode::kResourceExhausted:
      return v1::ERROR_REASON_MEMORY_EXHAUSTED;
    case absl::StatusCode::kCancelled:
      return v1::ERROR_REASON_CANCELLED;
    case absl::StatusCode::kDeadlineExceeded:
      return v1::ERROR_REASON_DEADLINE_EXCEEDED;
    case absl::StatusCode::kUnimplemented:
      return v1::ERROR_REASON_UNIMPLEMENTED;
    case absl::StatusCode::kDataLoss:
      return v1::ERROR_REASON_DATA_LOSS;
    case absl::StatusCode::kInternal:
      return v1::ERROR_REASON_INTERNAL;
    default:
      return v1::ERROR_REASON_UNSPECIFIED;
  }
}

v1::ErrorReason InvalidInputReason(absl::StatusCode code) {
  // The only state of a session in which the engine refuses a sound request.
  return code == absl::StatusCode::kFailedPrecondition ? v1::ERROR_REASON_EMPTY_SESSION
                                                       : ReasonOf(code);
}

v1::ErrorReason ReasonOf(ErrorReason reason, absl::StatusCode code, bool retryable) {
  switch (reason) {
    case ErrorReason::kUnspecified:
      return ReasonOf(code);
    case ErrorReason::kInvalidInput:
      return InvalidInputReason(code);
    case ErrorReason::kNotImplemented:
      return v1::ERROR_REASON_UNSUPPORTED_VALUE;
    case ErrorReason::kSessionNotFound:
      return v1::ERROR_REASON_SESSION_NOT_FOUND;
    case ErrorReason::kSessionExists:
      return v1::ERROR_REASON_SESSION_EXISTS;
    case ErrorReason::kSessionDeleted:
      return v1::ERROR_REASON_SESSION_DELETED;
    case ErrorReason::kCheckpointNotFound:
      return v1::ERROR_REASON_CHECKPOINT_NOT_FOUND;
    case ErrorReason::kTooManyCheckpoints:
      return v1::ERROR_REASON_TOO_MANY_CHECKPOINTS;
    case ErrorReason::kPositionMismatch:
      return v1::ERROR_REASON_POSITION_MISMATCH;
    case ErrorReason::kVersionMismatch:
      return v1::ERROR_REASON_VERSION_MISMATCH;
    case ErrorReason::kRequestInFlight:
      return v1::ERROR_REASON_REQUEST_IN_FLIGHT;
    case ErrorReason::kRequestSuperseded:
      return v1::ERROR_REASON_REQUEST_SUPERSEDED;
    case ErrorReason::kPayloadMismatch:
      return v1::ERROR_REASON_REQUEST_ID_REUSED;
    case ErrorReason::kContextExhausted:
      return v1::ERROR_REASON_CONTEXT_EXCEEDED;
    case ErrorReason::kOutOfMemory:
      return retryable ? v1::ERROR_REASON_MEMORY_EXHAUSTED : v1::ERROR_REASON_REQUEST_TOO_LARGE;
    case ErrorReason::kQueueFull:
      return v1::ERROR_REASON_QUEUE_FULL;
    case ErrorReason::kSlowReader:
      return v1::ERROR_REASON_SLOW_READER;
    case ErrorReason::kDeadlineExceeded:
      return v1::ERROR_REASON_DEADLINE_EXCEEDED;
    case ErrorReason::kCancelled:
      return v1::ERROR_REASON_CANCELLED;
    case ErrorReason::kDraining:
      return v1::ERROR_REASON_DRAINING;
    case ErrorReason::kBackendFailed:
      return v1::ERROR_REASON_ENGINE_FAILED;
    case ErrorReason::kStorageFull:
      return v1::ERROR_REASON_STORAGE_FULL;
    case ErrorReason::kStorageFailed:
      return v1::ERROR_REASON_STORAGE_FAILED;
    case ErrorReason::kDataLoss:
      return v1::ERROR_REASON_DATA_LOSS;
    case ErrorReason::kOtherModel:
      return v1::ERROR_REASON_OTHER_MODEL;
    case ErrorReason::kOffsetMismatch:
      return v1::ERROR_REASON_OFFSET_MISMATCH;
  }
  return v1::ERROR_REASON_UNSPECIFIED;
}

v1::ErrorDetail DetailOf(const absl::Status& status) {
  const ErrorInfo info = GetErrorInfo(status);
  v1::ErrorDetail detail;
  if (const auto payload = status.GetPayload(kDetailUrl)) {
    MNEME_CHECK(detail.ParseFromString(std::string(*payload)));
  } else {
    detail.set_reason(ReasonOf(info.reason, status.code(), info.retryable));
    detail.set_retryable(info.retryable);
  }
  if (info.position) detail.set_position(*info.position);
  if (info.version) detail.set_version(*info.version);
  if (info.offset) detail.set_offset(*info.offset);
  if (info.retry_delay) {
    ToProto(*info.retry_delay, detail.mutable_retry_delay());
  } else if (detail.retryable() && status.code() == absl::StatusCode::kResourceExhausted) {
    ToProto(kDefaultRetryDelay, detail.mutable_retry_delay());
  }
  return detail;
}

}  // namespace

absl::Status RequestError(absl::StatusCode code, v1::ErrorReason reason, const std::string& field,
                          const std::string& message) {
  v1::ErrorDetail detail;
  detail.set_reason(reason);
  detail.set_field(field);
  absl::Status status(code, message);
  status.SetPayload(kDetailUrl, absl::Cord(detail.SerializeAsString()));
  return status;
}

absl::Status InvalidField(const std::string& field, const std::string& message) {
  return RequestError(absl::StatusCode::kInvalidArgument, v1::ERROR_REASON_INVALID_FIELD, field,
                      message);
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  v1::RpcStatus rpc_status;
  rpc_status.set_code(static_cast<int>(status.code()));
  rpc_status.set_message(std::string(status.message()));
  rpc_status.add_details()->PackFrom(DetailOf(status));
  return {static_cast<grpc::StatusCode>(status.code()), rpc_status.message(),
          rpc_status.SerializeAsString()};
}

std::string StatusName(absl::StatusCode code) { return absl::StatusCodeToString(code); }

void ToProto(absl::Duration duration, google::protobuf::Duration* proto) {
  proto->set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &duration));
  proto->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(duration)));
}

void ToProto(absl::Time time, google::protobuf::Timestamp* proto) {
  proto->set_seconds(absl::ToUnixSeconds(time));
  proto->set_nanos(static_cast<int32_t>((time - absl::FromUnixSeconds(proto->seconds())) /
                                        absl::Nanoseconds(1)));
}

}  // namespace mneme
