#include "client/session_calls.h"

#include "base/status_macros.h"
#include "client/status_text.h"
#include "mneme/v1/inference.grpc.pb.h"
#include "mneme/v1/sessions.grpc.pb.h"

namespace mneme {
namespace {

using SessionStub = v1::SessionService::Stub;

// Makes one call of the SessionService: `method` is a member of its stub.
template <typename Request, typename Response>
absl::StatusOr<Response> SessionCall(const Connection& connection,
                                     grpc::Status (SessionStub::*method)(grpc::ClientContext*,
                                                                         const Request&, Response*),
                                     const Request& request) {
  Call call(connection);
  const auto stub = v1::SessionService::NewStub(connection.channel());
  Response response;
  MNEME_RETURN_IF_ERROR(FromRpc((*stub.*method)(call.context(), request, &response)));
  return response;
}

}  // namespace

absl::StatusOr<v1::Session> CreateSession(const Connection& connection,
                                          const v1::CreateSessionRequest& request) {
  return SessionCall(connection, &SessionStub::CreateSession, request);
}

absl::StatusOr<v1::Session> GetSession(const Connection& connection,
                                       const std::string& session_id) {
  v1::GetSessionRequest request;
  request.set_session_id(session_id);
  return SessionCall(connection, &SessionStub::GetSession, request);
}

absl::StatusOr<v1::Session> UpdateSession(const Connection& connection,
                                          const v1::UpdateSessionRequest& request) {
  return SessionCall(connection, &SessionStub::UpdateSession, request);
}

absl::StatusOr<v1::Session> ForkSession(const Connection& connection,
                                        const v1::ForkSessionRequest& request) {
  return SessionCall(connection, &SessionStub::ForkSession, request);
}

absl::StatusOr<v1::Session> RollbackSession(const Connection& connection,
                                            const v1::RollbackSessionRequest& request) {
  return SessionCall(connection, &SessionStub::RollbackSession, request);
}

absl::StatusOr<v1::CheckpointSessionResponse> CheckpointSession(
    const Connection& connection, const v1::CheckpointSessionRequest& request) {
  return SessionCall(connection, &SessionStub::CheckpointSession, request);
}

absl::Status DeleteSession(const Connection& connection, const std::string& session_id) {
  v1::DeleteSessionRequest request;
  request.set_session_id(session_id);
  return SessionCall(connection, &SessionStub::DeleteSession, request).status();
}

absl::StatusOr<v1::Session> OpenSession(const Connection& connection, const std::string& session_id,
                                        bool create) {
  absl::StatusOr<v1::Session> session = GetSession(connection, session_id);
  if (!create || !absl::IsNotFound(session.status())) return session;
  v1::CreateSessionRequest request;
  request.set_session_id(session_id);
  return CreateSession(connection, request);
}

absl::StatusOr<uint64_t> CountTokens(const Connection& connection, const std::string& text) {
  Call call(connection);
  const auto stub = v1::InferenceService::NewStub(connection.channel());
  v1::TokenizeRequest request;
  request.set_text(text);
  v1::TokenizeResponse response;
  MNEME_RETURN_IF_ERROR(FromRpc(stub->Tokenize(call.context(), request, &response)));
  return static_cast<uint64_t>(response.ids_size());
}

uint64_t ChunksClosed(uint64_t version) { return version & 0xFFFF'FFFFU; }
uint64_t ChunksClosed(const v1::Session& session) { return ChunksClosed(session.version()); }

}  // namespace mneme
