#ifndef MNEME_ENGINE_ERROR_H_
#define MNEME_ENGINE_ERROR_H_

// Statuses that say more than a code: why, whether a retry can help, and where the session stands.

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace mneme {

enum class ErrorReason : uint8_t {
  kUnspecified,
  kInvalidInput,    // the request itself is wrong
  kNotImplemented,  // a field value this version does not have
  kSessionNotFound,
  kSessionExists,
  kSessionDeleted,      // while the request was waiting or running
  kCheckpointNotFound,  // of this name
  kTooManyCheckpoints,  // that have names
  kPositionMismatch,    // expected_position
  kVersionMismatch,     // expected_version
  kRequestInFlight,     // the same request id is being worked on
  kRequestSuperseded,   // a retry, but the session went on without it
  kPayloadMismatch,     // the same request id with another payload
  kContextExhausted,    // max_position_embeddings
  kOutOfMemory,
  kQueueFull,
  kSlowReader,  // its client did not read what was generated
  kDeadlineExceeded,
  kCancelled,
  kDraining,
  kBackendFailed,
  kStorageFull,     // the disk of the session log
  kStorageFailed,   // it cannot be written to now, or what is in it does not come back
  kDataLoss,        // what is stored of the session is broken
  kOtherModel,      // the session was logged with another vocabulary or chunk size
  kOffsetMismatch,  // an import goes on elsewhere
};

struct ErrorInfo {
  ErrorReason reason = ErrorReason::kUnspecified;
  bool retryable = false;
  std::optional<uint64_t> position;  // of the session, if the request got as far as one
  std::optional<uint64_t> version;
  std::optional<absl::Duration> retry_delay;
  std::optional<uint64_t> offset;  // of an import: where it goes on
};

// A status that carries `info` as a payload; GetErrorInfo finds it again. The code must not be OK.
absl::Status MakeError(absl::StatusCode code, const std::string& message, const ErrorInfo& info);

// The info of MakeError; reason kUnspecified for a status made otherwise.
ErrorInfo GetErrorInfo(const absl::Status& status);

// `status` with the session's position and version filled in. OK stays OK.
absl::Status WithPosition(const absl::Status& status, uint64_t position, uint64_t version);

}  // namespace mneme

#endif  // MNEME_ENGINE_ERROR_H_
