#include "server/inference_service.h"

#include <utility>
#include <variant>

#include "server/append_stream.h"
#include "server/convert_inference.h"
#include "server/convert_status.h"
#include "server/generate_stream.h"
#include "server/unary_call.h"

namespace mneme {
namespace {

// The only thing that Cancel does not find is the request.
absl::Status CancelStatus(const absl::Status& status) {
  if (!absl::IsNotFound(status)) return status;
  return RequestError(absl::StatusCode::kNotFound, v1::ERROR_REASON_REQUEST_NOT_FOUND, "request_id",
                      std::string(status.message()));
}

// Answers a call with what a conversion gave.
template <typename Response>
grpc::ServerUnaryReactor* Answer(UnaryCall& call, absl::StatusOr<Response> result,
                                 Response* response) {
  const absl::Status status = result.status();
  if (status.ok()) *response = *std::move(result);
  return call.Finish(status);
}

}  // namespace

grpc::ServerBidiReactor<v1::AppendRequest, v1::AppendProgress>* InferenceService::Append(
    grpc::CallbackServerContext* call) {
  return StartAppend(context_, *call);
}

grpc::ServerWriteReactor<v1::GenerateEvent>* InferenceService::Generate(
    grpc::CallbackServerContext* call, const v1::GenerateRequest* request) {
  return StartGenerate(context_, *call, *request);
}

grpc::ServerUnaryReactor* InferenceService::Cancel(grpc::CallbackServerContext* call,
                                                   const v1::CancelRequest* request,
                                                   v1::CancelResponse* /*response*/) {
  auto unary = UnaryCall::Start(context_, *call, "Cancel");
  unary->record().session_id = request->session_id();
  unary->record().request_id = request->request_id();
  const absl::Status status = CheckCancel(*request);
  if (!status.ok()) return unary->Finish(status);
  context_.engine.Cancel({unary->tenant(), request->session_id()}, request->request_id(),
                         [unary](const absl::StatusOr<std::monostate>& done) {
                           unary->Finish(CancelStatus(done.status()));
                         });
  return unary->reactor();
}

grpc::ServerUnaryReactor* InferenceService::Tokenize(grpc::CallbackServerContext* call,
                                                     const v1::TokenizeRequest* request,
                                                     v1::TokenizeResponse* response) {
  auto unary = UnaryCall::Start(context_, *call, "Tokenize");
  return Answer(*unary, mneme::Tokenize(*request, context_.codec), response);
}

grpc::ServerUnaryReactor* InferenceService::Detokenize(grpc::CallbackServerContext* call,
                                                       const v1::DetokenizeRequest* request,
                                                       v1::DetokenizeResponse* response) {
  auto unary = UnaryCall::Start(context_, *call, "Detokenize");
  return Answer(*unary, mneme::Detokenize(*request, context_.codec), response);
}

}  // namespace mneme
