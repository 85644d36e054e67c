#ifndef MNEME_SERVER_GENERATE_STREAM_H_
#define MNEME_SERVER_GENERATE_STREAM_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include "mneme/v1/inference.pb.h"
#include "server/service_context.h"

namespace mneme {

// Serves one Generate call. The reactor owns itself; `request` must live until it is done.
grpc::ServerWriteReactor<v1::GenerateEvent>* StartGenerate(const ServiceContext& context,
                                                           grpc::CallbackServerContext& call,
                                                           const v1::GenerateRequest& request);

}  // namespace mneme

#endif  // MNEME_SERVER_GENERATE_STREAM_H_
