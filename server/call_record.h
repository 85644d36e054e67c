#ifndef MNEME_SERVER_CALL_RECORD_H_
#define MNEME_SERVER_CALL_RECORD_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/service_context.h"

namespace mneme {

// One call, from its arrival to the line in the log and the metrics that it leaves; to be kept
// until the call's reactor is done, so that the server knows what is in progress. One thread at a
// time.
class CallRecord {
 public:
  // `rpc` is the method's name, as "CreateSession". Calls that change nothing and may come every
  // second are `frequent`: they are logged at level debug only.
  CallRecord(const ServiceContext& context, std::string rpc, std::string tenant,
             bool frequent = false);
  ~CallRecord() { context_.calls->Leave(); }
  CallRecord(const CallRecord&) = delete;
  CallRecord& operator=(const CallRecord&) = delete;

  // Filled in as it becomes known.
  std::string session_id;
  std::string request_id;
  int64_t tokens_in = 0;
  int64_t tokens_out = 0;

  const std::string& tenant() const { return tenant_; }

  // Writes the record. Exactly once.
  void End(const absl::Status& status) const;

 private:
  const ServiceContext& context_;
  const std::string rpc_;
  const std::string tenant_;
  const bool frequent_;
  const absl::Time arrival_;
};

}  // namespace mneme

#endif  // MNEME_SERVER_CALL_RECORD_H_
