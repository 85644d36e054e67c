#ifndef MNEME_LOADTEST_STREAMS_H_
#define MNEME_LOADTEST_STREAMS_H_

// One stream as its plan wants it: read to the end, slowly, or given up on the way.

#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "loadtest/connection.h"
#include "loadtest/event_loop.h"
#include "loadtest/schedule.h"

namespace mneme {

// What became of a stream. Times are the loop's.
struct StreamResult {
  grpc::Status status;
  bool cancelled = false;                   // this client has given it up
  std::optional<grpc::Status> cancel_call;  // what the call Cancel answered, if it was made
  std::vector<int64_t> event_us;            // when each token or progress came
  int64_t end_us = 0;
  std::vector<uint32_t> ids;             // generated
  std::optional<v1::Finished> finished;  // of a Generate that ended with OK
  uint64_t position = 0;                 // of the session, from the last progress or Finished
};

struct StreamOptions {
  const Connection& connection;  // these two outlive the stream
  EventLoop& loop;
  RequestPlan plan;
  int64_t pause_us = 0;                          // of a slow reader, after each event
  std::string session_id, request_id;            // for the call Cancel
  std::shared_ptr<grpc::ClientContext> context;  // with the deadline; cancelling it is allowed
  std::function<void(StreamResult)> done;        // called once, as a task of the loop
};

void StartGenerate(StreamOptions options, v1::GenerateRequest request);

// `pieces` is not empty.
void StartAppend(StreamOptions options, std::vector<v1::AppendRequest> pieces);

}  // namespace mneme

#endif  // MNEME_LOADTEST_STREAMS_H_
