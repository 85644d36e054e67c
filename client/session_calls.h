#ifndef MNEME_CLIENT_SESSION_CALLS_H_
#define MNEME_CLIENT_SESSION_CALLS_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "client/connection.h"
#include "mneme/v1/sessions.pb.h"

namespace mneme {

// The simple calls that several commands share; each returns the call's status, see FromRpc.

absl::StatusOr<v1::Session> CreateSession(const Connection& connection,
                                          const v1::CreateSessionRequest& request);
absl::StatusOr<v1::Session> GetSession(const Connection& connection, const std::string& session_id);
absl::StatusOr<v1::Session> UpdateSession(const Connection& connection,
                                          const v1::UpdateSessionRequest& request);
absl::StatusOr<v1::Session> ForkSession(const Connection& connection,
                                        const v1::ForkSessionRequest& request);
absl::StatusOr<v1::Session> RollbackSession(const Connection& connection,
                                            const v1::RollbackSessionRequest& request);
absl::StatusOr<v1::CheckpointSessionResponse> CheckpointSession(
    const Connection& connection, const v1::CheckpointSessionRequest& request);
absl::Status DeleteSession(const Connection& connection, const std::string& session_id);

// The session of this id; where there is none and `create` is set, a new one.
absl::StatusOr<v1::Session> OpenSession(const Connection& connection, const std::string& session_id,
                                        bool create);

// How many tokens the server's tokenizer makes of a text.
absl::StatusOr<uint64_t> CountTokens(const Connection& connection, const std::string& text);

// The chunks that the session has closed: the lower half of its version.
uint64_t ChunksClosed(uint64_t version);
uint64_t ChunksClosed(const v1::Session& session);

}  // namespace mneme

#endif  // MNEME_CLIENT_SESSION_CALLS_H_
