#ifndef MNEME_SERVER_ADMIN_SERVICE_H_
#define MNEME_SERVER_ADMIN_SERVICE_H_

#include <atomic>

#include "mneme/v1/admin.grpc.pb.h"
#include "server/service_context.h"

namespace mneme {

// mneme.v1.AdminService. Drain answers UNIMPLEMENTED. `context` must outlive it.
class AdminService final : public v1::AdminService::CallbackService {
 public:
  explicit AdminService(const ServiceContext& context) : context_(context) {}

  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* call,
                                          const v1::GetServerInfoRequest* request,
                                          v1::GetServerInfoResponse* response) override;
  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* call,
                                         const v1::GetModelInfoRequest* request,
                                         v1::GetModelInfoResponse* response) override;
  grpc::ServerUnaryReactor* GetLoad(grpc::CallbackServerContext* call,
                                    const v1::GetLoadRequest* request,
                                    v1::GetLoadResponse* response) override;
  grpc::ServerUnaryReactor* Drain(grpc::CallbackServerContext* call,
                                  const v1::DrainRequest* request,
                                  v1::DrainResponse* response) override;

  // What GetLoad says from now on. Any thread.
  void SetDraining() { draining_ = true; }

 private:
  const ServiceContext& context_;
  std::atomic<bool> draining_ = false;
};

}  // namespace mneme

#endif  // MNEME_SERVER_ADMIN_SERVICE_H_
