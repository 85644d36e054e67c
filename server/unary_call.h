#ifndef MNEME_SERVER_UNARY_CALL_H_
#define MNEME_SERVER_UNARY_CALL_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "server/call_record.h"

namespace mneme {

// A unary call in progress: its record, and the reactor that ends it. Request and response live
// until Finish. Owns itself until OnDone, and is shared with the callback that finishes it, on
// whichever thread.
class UnaryCall final : public grpc::ServerUnaryReactor {
 public:
  static std::shared_ptr<UnaryCall> Start(const ServiceContext& context,
                                          grpc::CallbackServerContext& call, std::string rpc,
                                          bool frequent = false);

  CallRecord& record() { return record_; }
  const std::string& tenant() const { return record_.tenant(); }

  // Ends the call, exactly once. Returns the reactor, for a handler that ends at once.
  grpc::ServerUnaryReactor* Finish(const absl::Status& status);
  grpc::ServerUnaryReactor* reactor() { return this; }

  // OK, or why the client waits no longer: CANCELLED, DEADLINE_EXCEEDED. Any thread, before Finish.
  absl::Status GaveUp() const;

  void OnCancel() override { gone_ = true; }
  void OnDone() override { self_.reset(); }

 private:
  UnaryCall(const ServiceContext& context, const grpc::CallbackServerContext& call, std::string rpc,
            bool frequent);

  CallRecord record_;
  const std::chrono::system_clock::time_point deadline_;
  std::atomic<bool> gone_ = false;   // cancelled, or its deadline has passed
  std::shared_ptr<UnaryCall> self_;  // until OnDone
};

// UNIMPLEMENTED, for calls that the API has and this server has not.
absl::Status NotImplemented(const std::string& rpc);

}  // namespace mneme

#endif  // MNEME_SERVER_UNARY_CALL_H_
