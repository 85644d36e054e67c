#include "server/session_service.h"

#include <memory>
#include <string>
#include <utility>

#include "server/archive_streams.h"
#include "server/convert_session.h"
#include "server/convert_status.h"
#include "server/unary_call.h"

namespace mneme {
namespace {

// Answers a call with a session.
Engine::Done<SessionInfo> AnswerWith(const ServiceContext& context, std::shared_ptr<UnaryCall> call,
                                     v1::Session* response) {
  return [&context, call = std::move(call), response](const absl::StatusOr<SessionInfo>& info) {
    if (info.ok()) {
      call->record().session_id = info->key.id;
      ToProto(*info, context.model, response);
    }
    call->Finish(info.status());
  };
}

// Ends a call that is held when its client has given up.
Engine::GaveUp WhileWaited(std::shared_ptr<UnaryCall> call) {
  return [call = std::move(call)] { return call->GaveUp(); };
}

}  // namespace

grpc::ServerUnaryReactor* SessionService::CreateSession(grpc::CallbackServerContext* call,
                                                        const v1::CreateSessionRequest* request,
                                                        v1::Session* response) {
  auto unary = UnaryCall::Start(context_, *call, "CreateSession");
  unary->record().session_id = request->session_id();
  if (request->has_session_id()) {
    const absl::Status status = ValidateSessionId(request->session_id());
    if (!status.ok()) {
      return unary->Finish(InvalidField("session_id", std::string(status.message())));
    }
  }
  auto options = ToSessionOptions(*request);
  if (!options.ok()) return unary->Finish(options.status());
  context_.engine.CreateSession({unary->tenant(), request->session_id()}, *std::move(options),
                                AnswerWith(context_, unary, response));
  return unary->reactor();
}

grpc::ServerUnaryReactor* SessionService::GetSession(grpc::CallbackServerContext* call,
                                                     const v1::GetSessionRequest* request,
                                                     v1::Session* response) {
  auto unary = UnaryCall::Start(context_, *call, "GetSession", /*frequent=*/true);
  unary->record().session_id = request->session_id();
  const absl::Status status = RequireSessionId(request->session_id());
  if (!status.ok()) return unary->Finish(status);
  context_.engine.GetSession({unary->tenant(), request->session_id()},
                             AnswerWith(context_, unary, response));
  return unary->reactor();
}

grpc::ServerUnaryReactor* SessionService::ListSessions(grpc::CallbackServerContext* call,
                                                       const v1::ListSessionsRequest* request,
                                                       v1::ListSessionsResponse* response) {
  auto unary = UnaryCall::Start(context_, *call, "ListSessions", /*frequent=*/true);
  auto after = FromPageToken(request->page_token());
  if (!after.ok()) return unary->Finish(after.status());
  context_.engine.ListSessions(
      unary->tenant(), *std::move(after), ToPageLimit(request->page_size()),
      [this, unary, response](const absl::StatusOr<Engine::SessionPage>& page) {
        if (page.ok()) {
          for (const SessionInfo& info : page->sessions) {
            ToProto(info, context_.model, response->add_sessions());
          }
          response->set_next_page_token(ToPageToken(page->next_after));
        }
        unary->Finish(page.status());
      });
  return unary->reactor();
}

grpc::ServerUnaryReactor* SessionService::UpdateSession(grpc::CallbackServerContext* call,
                                                        const v1::UpdateSessionRequest* request,
                                                        v1::Session* response) {
  auto unary = UnaryCall::Start(context_, *call, "UpdateSession");
  const std::string& id = request->session().session_id();
  unary->record().session_id = id;
  if (const absl::Status status = RequireSessionId(id); !status.ok()) return unary->Finish(status);
  auto update = ToSessionUpdate(*request);
  if (!update.ok()) return unary->Finish(update.status());
  context_.engine.UpdateSession({unary->tenant(), id}, *std::move(update),
                                AnswerWith(context_, unary, response));
  return unary->reactor();
}

grpc::ServerUnaryReactor* SessionService::DeleteSession(grpc::CallbackServerContext* call,
                                                        const v1::DeleteSessionRequest* request,
                                                        v1::DeleteSessionResponse* /*response*/) {
  auto unary = UnaryCall::Start(context_, *call, "DeleteSession");
  unary->record().session_id = request->session_id();
  const absl::Status status = RequireSessionId(request->session_id());
  if (!status.ok()) return unary->Finish(status);
  context_.engine.DeleteSession(
      {unary->tenant(), request->session_id()},
      [unary](const absl::StatusOr<SessionInfo>& info) { unary->Finish(info.status()); });
  return unary->reactor();
}

grpc::ServerUnaryReactor* SessionService::Refuse(grpc::CallbackServerContext* call,
                                                 const char* rpc) {
  return UnaryCall::Start(context_, *call, rpc)->Finish(NotImplemented(rpc));
}

grpc::ServerUnaryReactor* SessionService::ForkSession(grpc::CallbackServerContext* call,
                                                      const v1::ForkSessionRequest* request,
                                                      v1::Session* response) {
  auto unary = UnaryCall::Start(context_, *call, "ForkSession");
  unary->record().session_id = request->session_id();
  const absl::Status status = RequireSessionId(request->session_id());
  if (!status.ok()) return unary->Finish(status);
  if (request->has_new_session_id()) {
    const absl::Status valid = ValidateSessionId(request->new_session_id());
    if (!valid.ok()) {
      return unary->Finish(InvalidField("new_session_id", std::string(valid.message())));
    }
  }
  absl::StatusOr<HistoryPoint> at = ToHistoryPoint(*request);
  if (!at.ok()) return unary->Finish(at.status());
  context_.engine.ForkSession({unary->tenant(), request->session_id()}, request->new_session_id(),
                              *std::move(at), WhileWaited(unary),
                              AnswerWith(context_, unary, response));
  return unary->reactor();
}

grpc::ServerUnaryReactor* SessionService::RollbackSession(grpc::CallbackServerContext* call,
                                                          const v1::RollbackSessionRequest* request,
                                                          v1::Session* response) {
  auto unary = UnaryCall::Start(context_, *call, "RollbackSession");
  unary->record().session_id = request->session_id();
  const absl::Status status = RequireSessionId(request->session_id());
  if (!status.ok()) return unary->Finish(status);
  absl::StatusOr<HistoryPoint> to = ToHistoryPoint(*request);
  if (!to.ok()) return unary->Finish(to.status());
  context_.engine.RollbackSession({unary->tenant(), request->session_id()}, *std::move(to),
                                  WhileWaited(unary), AnswerWith(context_, unary, response));
  return unary->reactor();
}

grpc::ServerUnaryReactor* SessionService::CheckpointSession(
    grpc::CallbackServerContext* call, const v1::CheckpointSessionRequest* request,
    v1::CheckpointSessionResponse* response) {
  auto unary = UnaryCall::Start(context_, *call, "CheckpointSession");
  unary->record().session_id = request->session_id();
  const absl::Status status = RequireSessionId(request->session_id());
  if (!status.ok()) return unary->Finish(status);
  const absl::Status named = CheckCheckpointName("name", request->name());
  if (!named.ok()) return unary->Finish(named);
  context_.engine.CheckpointSession(
      {unary->tenant(), request->session_id()}, request->name(), WhileWaited(unary),
      [unary, response](const absl::StatusOr<CheckpointSummary>& summary) {
        if (summary.ok()) ToProto(*summary, response);
        unary->Finish(summary.status());
      });
  return unary->reactor();
}

grpc::ServerWriteReactor<v1::ExportSessionResponse>* SessionService::ExportSession(
    grpc::CallbackServerContext* call, const v1::ExportSessionRequest* request) {
  return StartExport(context_, *call, *request);
}

grpc::ServerReadReactor<v1::ImportSessionRequest>* SessionService::ImportSession(
    grpc::CallbackServerContext* call, v1::Session* response) {
  return StartImport(context_, *call, response);
}

grpc::ServerUnaryReactor* SessionService::InspectSession(
    grpc::CallbackServerContext* call, const v1::InspectSessionRequest* /*request*/,
    v1::InspectSessionResponse* /*response*/) {
  return Refuse(call, "InspectSession");
}

}  // namespace mneme
