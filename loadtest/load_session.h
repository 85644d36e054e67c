#ifndef MNEME_LOADTEST_LOAD_SESSION_H_
#define MNEME_LOADTEST_LOAD_SESSION_H_

#include <grpcpp/client_context.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "loadtest/connection.h"
#include "loadtest/event_loop.h"
#include "loadtest/report.h"
#include "loadtest/schedule.h"
#include "loadtest/streams.h"

namespace mneme {

// What all sessions of a load share. Of the loop's thread.
struct LoadContext {
  const LoadOptions& options;
  const Connection& connection;
  uint32_t vocab_size = 0;
  EventLoop& loop;
  LoadReport& report;
  bool interrupted = false;
};

// The course of one session or document: create, one request after the other, delete. Each call is
// counted in the report. Of the loop's thread; lives as long as the loop runs.
class LoadSession {
 public:
  // `arrival` outlives it. `done` is called once, when nothing of it is under way any more.
  LoadSession(LoadContext& context, const Arrival& arrival, std::string id,
              std::function<void()> done);

  // `scheduled_us` is when the session was to begin.
  void Start(int64_t scheduled_us);

  // The request under way is cancelled, and no other begins.
  void Interrupt();

  const Arrival& arrival() const { return arrival_; }
  const std::string& id() const { return id_; }
  // Of a checked session: one for each request that has ended, in order.
  const std::vector<StreamResult>& results() const { return results_; }

 private:
  void Create();
  void OnCreated(const grpc::Status& status);
  void Think();
  void Send();
  void OnEnd(StreamResult result);
  void Delete();

  // Counts the end of a call. `expected`: it is no failure of the server.
  void Count(const std::string& call, const grpc::Status& status, bool expected);
  void Measure(const StreamResult& result);
  bool IsExpected(const StreamResult& result) const;

  // If `status` allows it and a try is left: runs `again` after the delay that it asks for.
  bool Retry(const grpc::Status& status, void (LoadSession::*again)());
  void NewContext();
  const char* CallName() const { return arrival_.is_document ? "Append" : "Generate"; }

  LoadContext& context_;
  const Arrival& arrival_;
  const std::string id_;
  const std::function<void()> done_;

  size_t next_ = 0;                             // the request that is under way or comes next
  int64_t scheduled_us_ = 0;                    // when it was to begin
  int64_t retries_left_ = 0;                    // of the call under way
  bool waiting_ = false;                        // for a time: thinking, or before a retry
  bool ending_ = false;                         // deleted, or being deleted
  std::shared_ptr<grpc::ClientContext> call_;   // the last stream's; null before the first
  std::unique_ptr<grpc::ClientContext> unary_;  // of the last create or delete
  std::vector<StreamResult> results_;

  v1::CreateSessionRequest create_request_;
  v1::Session create_response_;
  v1::DeleteSessionRequest delete_request_;
  v1::DeleteSessionResponse delete_response_;
};

}  // namespace mneme

#endif  // MNEME_LOADTEST_LOAD_SESSION_H_
