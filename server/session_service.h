#ifndef MNEME_SERVER_SESSION_SERVICE_H_
#define MNEME_SERVER_SESSION_SERVICE_H_

#include "mneme/v1/sessions.grpc.pb.h"
#include "server/service_context.h"

namespace mneme {

// mneme.v1.SessionService. Inspect answers UNIMPLEMENTED. `context`
// must outlive it.
class SessionService final : public v1::SessionService::CallbackService {
 public:
  explicit SessionService(const ServiceContext& context) : context_(context) {}

  grpc::ServerUnaryReactor* CreateSession(grpc::CallbackServerContext* call,
                                          const v1::CreateSessionRequest* request,
                                          v1::Session* response) override;
  grpc::ServerUnaryReactor* GetSession(grpc::CallbackServerContext* call,
                                       const v1::GetSessionRequest* request,
                                       v1::Session* response) override;
  grpc::ServerUnaryReactor* ListSessions(grpc::CallbackServerContext* call,
                                         const v1::ListSessionsRequest* request,
                                         v1::ListSessionsResponse* response) override;
  grpc::ServerUnaryReactor* UpdateSession(grpc::CallbackServerContext* call,
                                          const v1::UpdateSessionRequest* request,
                                          v1::Session* response) override;
  grpc::ServerUnaryReactor* DeleteSession(grpc::CallbackServerContext* call,
                                          const v1::DeleteSessionRequest* request,
                                          v1::DeleteSessionResponse* response) override;

  grpc::ServerUnaryReactor* ForkSession(grpc::CallbackServerContext* call,
                                        const v1::ForkSessionRequest* request,
                                        v1::Session* response) override;
  grpc::ServerUnaryReactor* RollbackSession(grpc::CallbackServerContext* call,
                                            const v1::RollbackSessionRequest* request,
                                            v1::Session* response) override;
  grpc::ServerUnaryReactor* CheckpointSession(grpc::CallbackServerContext* call,
                                              const v1::CheckpointSessionRequest* request,
                                              v1::CheckpointSessionResponse* response) override;
  grpc::ServerWriteReactor<v1::ExportSessionResponse>* ExportSession(
      grpc::CallbackServerContext* call, const v1::ExportSessionRequest* request) override;
  grpc::ServerReadReactor<v1::ImportSessionRequest>* ImportSession(
      grpc::CallbackServerContext* call, v1::Session* response) override;
  grpc::ServerUnaryReactor* InspectSession(grpc::CallbackServerContext* call,
                                           const v1::InspectSessionRequest* request,
                                           v1::InspectSessionResponse* response) override;

 private:
  grpc::ServerUnaryReactor* Refuse(grpc::CallbackServerContext* call, const char* rpc);

  const ServiceContext& context_;
};

}  // namespace mneme

#endif  // MNEME_SERVER_SESSION_SERVICE_H_
