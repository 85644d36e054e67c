#include "engine/durability/storage_error.h"

#include "engine/error.h"

namespace mneme {

absl::Status StorageError(const absl::Status& why, const std::string& message) {
  const bool full = absl::IsResourceExhausted(why);
  const ErrorReason reason = full ? ErrorReason::kStorageFull : ErrorReason::kStorageFailed;
  return MakeError(full ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kUnavailable,
                   message,
                   {.reason = reason, .retryable = true, .retry_delay = kStorageRetryDelay});
}

absl::Status ForClient(const absl::Status& status) {
  if (status.ok() || GetErrorInfo(status).reason != ErrorReason::kUnspecified) return status;
  const std::string message(status.message());
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:  // it can never be held
      return MakeError(absl::StatusCode::kResourceExhausted, message,
                       {.reason = ErrorReason::kOutOfMemory});
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kUnavailable:
      return StorageError(status, message);
    case absl::StatusCode::kDataLoss:
      return MakeError(status.code(), message, {.reason = ErrorReason::kDataLoss});
    default:
      return MakeError(status.code(), message, {});
  }
}

}  // namespace mneme
