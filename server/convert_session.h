#ifndef MNEME_SERVER_CONVERT_SESSION_H_
#define MNEME_SERVER_CONVERT_SESSION_H_

// Sessions between the wire and the engine.

#include <string>

#include "absl/status/statusor.h"
#include "engine/request.h"
#include "mneme/v1/sessions.pb.h"
#include "server/model_description.h"

namespace mneme {

// INVALID_ARGUMENT unless `id` is not empty. Whether it is well-formed is the engine's to say.
absl::Status RequireSessionId(const std::string& id);

// INVALID_ARGUMENT for a malformed label or ttl, and for a control that is not implemented; ranges
// of controls are the engine's to check.
absl::StatusOr<SessionOptions> ToSessionOptions(const v1::CreateSessionRequest& request);

// A position in a session's log; what no log can hold becomes the largest there is.
int64_t ToPosition(uint64_t position);
// Where a session is forked, or rolled back to. INVALID_ARGUMENT for both a position and a
// checkpoint, and for a malformed name.
absl::StatusOr<HistoryPoint> ToHistoryPoint(const v1::ForkSessionRequest& request);
absl::StatusOr<HistoryPoint> ToHistoryPoint(const v1::RollbackSessionRequest& request);
// OK for no name. INVALID_ARGUMENT.
absl::Status CheckCheckpointName(const std::string& field, const std::string& name);
// What an UpdateSession changes: what its mask names.
// INVALID_ARGUMENT for a mask that is empty or names a path that does not exist.
absl::StatusOr<SessionUpdate> ToSessionUpdate(const v1::UpdateSessionRequest& request);

void ToProto(const SessionInfo& info, const ModelDescription& model, v1::Session* proto);
void ToProto(const CheckpointSummary& summary, v1::CheckpointSessionResponse* proto);

// One page of ListSessions. INVALID_ARGUMENT for a page token that ToPageToken did not make.
absl::StatusOr<std::string> FromPageToken(const std::string& token);
std::string ToPageToken(const std::string& after);  // empty stays empty
int ToPageLimit(uint32_t page_size);

}  // namespace mneme

#endif  // MNEME_SERVER_CONVERT_SESSION_H_
