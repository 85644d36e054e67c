#ifndef MNEME_SERVER_INFERENCE_SERVICE_H_
#define MNEME_SERVER_INFERENCE_SERVICE_H_

#include "mneme/v1/inference.grpc.pb.h"
#include "server/service_context.h"

namespace mneme {

// mneme.v1.InferenceService. `context` must outlive it.
class InferenceService final : public v1::InferenceService::CallbackService {
 public:
  explicit InferenceService(const ServiceContext& context) : context_(context) {}

  grpc::ServerBidiReactor<v1::AppendRequest, v1::AppendProgress>* Append(
      grpc::CallbackServerContext* call) override;
  grpc::ServerWriteReactor<v1::GenerateEvent>* Generate(
      grpc::CallbackServerContext* call, const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* Cancel(grpc::CallbackServerContext* call,
                                   const v1::CancelRequest* request,
                                   v1::CancelResponse* response) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* call,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* call,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override;

 private:
  const ServiceContext& context_;
};

}  // namespace mneme

#endif  // MNEME_SERVER_INFERENCE_SERVICE_H_
