#ifndef MNEME_CLIENT_STREAMS_H_
#define MNEME_CLIENT_STREAMS_H_

#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/connection.h"
#include "mneme/v1/inference.pb.h"

namespace mneme {

// Puts the next input into the request; false: there is none left.
using NextInput = std::function<absl::StatusOr<bool>(v1::AppendRequest&)>;

// Streams inputs into a session. `options` holds what the first message carries beside its input.
// `next` runs on a thread of its own and as fast as the server takes the inputs; its error cancels
// the call. Returns when the server has ended the call: the error of `next` or of the call.
absl::Status AppendStream(const Connection& connection, const v1::AppendRequest& options,
                          const NextInput& next,
                          const std::function<void(const v1::AppendProgress&)>& on_progress);

// Runs a generation and hands each event on as it comes; `Finished` has come last if it is OK.
absl::Status GenerateStream(const Connection& connection, const v1::GenerateRequest& request,
                            const std::function<void(const v1::GenerateEvent&)>& on_event);

}  // namespace mneme

#endif  // MNEME_CLIENT_STREAMS_H_
