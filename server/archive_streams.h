#ifndef MNEME_SERVER_ARCHIVE_STREAMS_H_
#define MNEME_SERVER_ARCHIVE_STREAMS_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include "mneme/v1/sessions.pb.h"
#include "server/service_context.h"

namespace mneme {

// Serve one ExportSession or ImportSession call: one piece of the archive is on its way at a time,
// so neither a slow client nor a slow disk makes the other's bytes pile up. The reactor owns
// itself.
grpc::ServerWriteReactor<v1::ExportSessionResponse>* StartExport(
    const ServiceContext& context, grpc::CallbackServerContext& call,
    const v1::ExportSessionRequest& request);
grpc::ServerReadReactor<v1::ImportSessionRequest>* StartImport(const ServiceContext& context,
                                                               grpc::CallbackServerContext& call,
                                                               v1::Session* response);

}  // namespace mneme

#endif  // MNEME_SERVER_ARCHIVE_STREAMS_H_
