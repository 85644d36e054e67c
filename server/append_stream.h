#ifndef MNEME_SERVER_APPEND_STREAM_H_
#define MNEME_SERVER_APPEND_STREAM_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include "mneme/v1/inference.pb.h"
#include "server/service_context.h"

namespace mneme {

// Serves one Append call. The reactor owns itself.
grpc::ServerBidiReactor<v1::AppendRequest, v1::AppendProgress>* StartAppend(
    const ServiceContext& context, grpc::CallbackServerContext& call);

}  // namespace mneme

#endif  // MNEME_SERVER_APPEND_STREAM_H_
