#ifndef MNEME_ENGINE_DURABILITY_STORAGE_ERROR_H_
#define MNEME_ENGINE_DURABILITY_STORAGE_ERROR_H_

// What clients are told of storage's statuses. Any thread.

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace mneme {

// When to try again what the disk did not take.
inline constexpr absl::Duration kStorageRetryDelay = absl::Seconds(2);

// RESOURCE_EXHAUSTED if the disk is full, as `why` says, else UNAVAILABLE; retryable.
absl::Status StorageError(const absl::Status& why, const std::string& message);

// `status` of the disk, of a spool or of what an archive holds: a full disk and one that fails can
// be tried again, an archive that is too large cannot. What says why stays.
absl::Status ForClient(const absl::Status& status);

}  // namespace mneme

#endif  // MNEME_ENGINE_DURABILITY_STORAGE_ERROR_H_
