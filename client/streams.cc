#include "client/streams.h"

#include <thread>

#include "base/status_macros.h"
#include "client/status_text.h"
#include "mneme/v1/inference.grpc.pb.h"

namespace mneme {
namespace {

// A failed write is no error here: the call's own status says why it ended.
absl::Status WriteInputs(
    v1::AppendRequest request, const NextInput& next,
    grpc::ClientReaderWriterInterface<v1::AppendRequest, v1::AppendProgress>& stream) {
  bool opened = false;
  while (true) {
    MNEME_ASSIGN_OR_RETURN(const bool more, next(request));
    // Without any input the options still go out, so that the server says what is wrong.
    if ((more || !opened) && !stream.Write(request)) return absl::OkStatus();
    if (!more) break;
    opened = true;
    request.Clear();
  }
  stream.WritesDone();
  return absl::OkStatus();
}

}  // namespace

absl::Status AppendStream(const Connection& connection, const v1::AppendRequest& options,
                          const NextInput& next,
                          const std::function<void(const v1::AppendProgress&)>& on_progress) {
  Call call(connection);
  const auto stub = v1::InferenceService::NewStub(connection.channel());
  const auto stream = stub->Append(call.context());
  absl::Status input_status;
  std::thread writer([&] {
    input_status = WriteInputs(options, next, *stream);
    if (!input_status.ok()) call.context()->TryCancel();
  });
  v1::AppendProgress progress;
  while (stream->Read(&progress)) on_progress(progress);
  writer.join();
  const absl::Status status = FromRpc(stream->Finish());
  return input_status.ok() ? status : input_status;
}

absl::Status GenerateStream(const Connection& connection, const v1::GenerateRequest& request,
                            const std::function<void(const v1::GenerateEvent&)>& on_event) {
  Call call(connection);
  const auto stub = v1::InferenceService::NewStub(connection.channel());
  const auto stream = stub->Generate(call.context(), request);
  v1::GenerateEvent event;
  bool finished = false;
  while (stream->Read(&event)) {
    finished = event.has_finished();
    on_event(event);
  }
  MNEME_RETURN_IF_ERROR(FromRpc(stream->Finish()));
  if (!finished) return absl::InternalError("the server ended the generation without Finished");
  return absl::OkStatus();
}

}  // namespace mneme
