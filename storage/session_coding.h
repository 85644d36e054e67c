#ifndef MNEME_STORAGE_SESSION_CODING_H_
#define MNEME_STORAGE_SESSION_CODING_H_

// Sessions' records as bytes, before they are sealed. Decoding is DATA_LOSS for anything else.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "storage/session_state.h"

namespace mneme {

// What one record of a session's log leads to. It comes first in it, so that a listing needs no
// more than each session's last record.
struct LogRecordHead {
  uint32_t epoch = 0;
  int64_t position = 0;
  absl::Time time;
  bool whole = false;  // the events begin with an empty session: no record before it counts

  friend bool operator==(const LogRecordHead&, const LogRecordHead&) = default;
};

// What one step has done to a session.
std::string EncodeLogRecord(const LogRecordHead& head, const std::vector<SessionEvent>& events);
// The same as several records, each of `max_bytes` of events at most, or of one event alone that
// takes more. Events that forget tokens come first.
std::vector<std::string> EncodeLogRecords(const LogRecordHead& head,
                                          const std::vector<SessionEvent>& events,
                                          size_t max_bytes);
absl::StatusOr<LogRecordHead> DecodeLogRecordHead(absl::string_view bytes);
// Applies the record's events, one by one, and checks that they lead where its head says.
absl::StatusOr<LogRecordHead> ApplyLogRecord(absl::string_view bytes, SessionState* state);

std::string EncodeMetadata(const SessionMetadata& metadata);
absl::StatusOr<SessionMetadata> DecodeMetadata(absl::string_view bytes);

}  // namespace mneme

#endif  // MNEME_STORAGE_SESSION_CODING_H_
