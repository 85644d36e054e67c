#include "server/admin_service.h"

#include <algorithm>

#include "base/version.h"
#include "server/convert_admin.h"
#include "server/convert_status.h"
#include "server/unary_call.h"

namespace mneme {

grpc::ServerUnaryReactor* AdminService::GetServerInfo(grpc::CallbackServerContext* call,
                                                      const v1::GetServerInfoRequest* /*request*/,
                                                      v1::GetServerInfoResponse* response) {
  auto unary = UnaryCall::Start(context_, *call, "GetServerInfo", /*frequent=*/true);
  response->set_version(kVersion);
  response->set_api("mneme.v1");
  response->set_backend(context_.backend);
  response->set_device(context_.engine.backend_description());
  ToProto(context_.start_time, response->mutable_start_time());
  ToProto(context_.clock.Now() - context_.start_time, response->mutable_uptime());
  response->set_max_message_bytes(static_cast<uint64_t>(context_.max_message_bytes));
  response->set_default_max_tokens(
      static_cast<uint32_t>(context_.engine.options().default_max_tokens));
  return unary->Finish(absl::OkStatus());
}

grpc::ServerUnaryReactor* AdminService::GetModelInfo(grpc::CallbackServerContext* call,
                                                     const v1::GetModelInfoRequest* /*request*/,
                                                     v1::GetModelInfoResponse* response) {
  auto unary = UnaryCall::Start(context_, *call, "GetModelInfo", /*frequent=*/true);
  ToProto(context_.model, response);
  return unary->Finish(absl::OkStatus());
}

grpc::ServerUnaryReactor* AdminService::GetLoad(grpc::CallbackServerContext* call,
                                                const v1::GetLoadRequest* /*request*/,
                                                v1::GetLoadResponse* response) {
  auto unary = UnaryCall::Start(context_, *call, "GetLoad", /*frequent=*/true);
  context_.engine.GetLoad([this, unary, response](const absl::StatusOr<EngineLoad>& load) {
    if (load.ok()) {
      ToProto(*load, response);
      response->set_queue_capacity(
          static_cast<uint32_t>(context_.engine.options().max_queued_requests));
      response->set_pending_token_capacity(
          static_cast<uint64_t>(context_.engine.options().max_queued_tokens));
      ToProto(context_.engine.options().target_inter_token, response->mutable_target_inter_token());
      response->set_prefill_tokens_per_second(context_.metrics.tokens_in_per_second());
      response->set_decode_tokens_per_second(context_.metrics.tokens_out_per_second());
      response->set_draining(draining_);
    }
    unary->Finish(load.status());
  });
  return unary->reactor();
}

grpc::ServerUnaryReactor* AdminService::Drain(grpc::CallbackServerContext* call,
                                              const v1::DrainRequest* /*request*/,
                                              v1::DrainResponse* /*response*/) {
  return UnaryCall::Start(context_, *call, "Drain")->Finish(NotImplemented("Drain"));
}

}  // namespace mneme
