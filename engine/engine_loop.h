#ifndef MNEME_ENGINE_ENGINE_LOOP_H_
#define MNEME_ENGINE_ENGINE_LOOP_H_

// What the engine thread owns and does: the sessions, the requests in flight, and the steps.

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/engine.h"
#include "engine/job.h"
#include "engine/job_queues.h"
#include "engine/model.h"
#include "engine/scheduling/step_scheduler.h"
#include "engine/scheduling/tenants.h"
#include "engine/session_table.h"
#include "engine/update_queue.h"

namespace mneme {

// One thread only: the engine thread.
class EngineLoop {
 public:
  EngineLoop(std::unique_ptr<CachePools> pools, std::unique_ptr<Model> model,
             const JobContext& context);
  ~EngineLoop();

  // Works on what is there: begins requests, runs one step if anything can be computed, ends what
  // is done. False if nothing could be done before something new comes or NextWake.
  bool RunOnce();
  // When a deadline, a reader's time or a session's time to live ends next.
  absl::Time NextWake() const;

  // --- Sessions; see Engine. ---
  absl::StatusOr<SessionInfo> CreateSession(SessionKey key, SessionOptions options);
  absl::StatusOr<SessionInfo> GetSession(const SessionKey& key) const;
  Engine::SessionPage ListSessions(const std::string& tenant, const std::string& after,
                                   int limit) const;
  absl::StatusOr<SessionInfo> UpdateSession(const SessionKey& key, const SessionUpdate& update);
  absl::StatusOr<SessionInfo> DeleteSession(const SessionKey& key);
  // Those that hold device memory and have no request in flight, the one not used for longest
  // first: candidates to leave the device.
  std::vector<Session*> IdleSessions() const;
  // The session itself, to look into its state between steps; owned by the loop.
  absl::StatusOr<Session*> FindSession(const SessionKey& key) const { return sessions_.Find(key); }

  // --- Requests; see Engine. A refused one gets its RequestEnd at once. ---
  void Append(AppendRequest request, std::shared_ptr<RequestChannel> channel);
  void Generate(GenerateRequest request, std::shared_ptr<RequestChannel> channel);
  absl::Status Cancel(const SessionKey& key, const std::string& request_id);

  EngineLoop(const EngineLoop&) = delete;
  EngineLoop& operator=(const EngineLoop&) = delete;

  EngineLoad load() const;
  int64_t requests_in_flight() const { return queues_.size(); }
  // When a request that the full queue refuses now should come again.
  absl::Duration retry_delay() const;
  // Refuses new requests with `status` from now on.
  void Refuse(const absl::Status& status) { refusal_ = status; }
  // Ends every request with `status`.
  void EndAll(const absl::Status& status);
  // OK, or why the backend failed. A failed loop refuses everything.
  const absl::Status& failure() const { return failure_; }

 private:
  struct Ready {
    Job* job;
    Candidate candidate;
  };

  // RESOURCE_EXHAUSTED if the queue has no room for one request more.
  absl::Status Admit(const RequestHeader& header, int64_t input_tokens);
  // The session of a new request; ABORTED if the same request is in flight.
  absl::StatusOr<Session*> FindForRequest(const RequestHeader& header, int64_t input_tokens);
  // Queues a job that could ever be served, and tells the client of any other.
  void Push(std::unique_ptr<Job> job);
  void GenerateThrowAway(GenerateRequest request, std::shared_ptr<RequestChannel> channel);

  // Ends what was cancelled or has passed its deadline; true if an expired session was deleted.
  bool Sweep();
  bool DeleteExpired(absl::Time now);
  // Asks the first request of each queue what it can do, in the order of their arrival.
  std::vector<Ready> AskHeads();
  // Those of them that may take part in the next step: streams begin while others keep their pace,
  // and memory is given in the order of arrival: while one waits for it, no later one gets more
  // than it has.
  std::vector<Ready> CollectReady();
  // Sessions with chunks to be learnt that the next step may take along: no request of theirs could
  // take part in it.
  std::vector<Session*> CollectUpdates(const std::vector<Ready>& ready) const;
  Candidate WithTenant(Candidate candidate, const Job& job);
  // If all that could run waits for memory that nobody will give back, ends the first of them.
  void RelieveMemory();
  void RunStep(const std::vector<Ready>& ready, const std::vector<Session*>& updates);
  StepPlan Plan(const std::vector<Ready>& ready, const std::vector<Session*>& updates);
  // Runs a step and reports it; false if the backend failed.
  bool RunModel(absl::Span<SequenceStep> steps);
  // Ends the requests that are done, and counts those in flight anew.
  void Retire();
  void CountRequests();
  void EndSession(Session* session, const absl::Status& status);
  void Fail(const absl::Status& status);

  const std::unique_ptr<CachePools> pools_;
  const std::unique_ptr<Model> model_;
  JobContext context_;
  SessionTable sessions_;
  JobQueues queues_;
  UpdateQueue updates_;  // of sessions in sessions_
  StepScheduler scheduler_;
  Tenants tenants_;
  DecayingRate ended_, tokens_in_;  // requests; input tokens computed
  int64_t counted_ended_ = 0;       // of queues_.ended()
  uint64_t arrivals_ = 0;
  uint64_t steps_ = 0;
  absl::Time next_expiry_ = absl::InfiniteFuture();  // no session expires before
  // Could run but for memory, in the order of arrival; of the last CollectReady.
  std::vector<Job*> starved_;
  absl::Status refusal_;
  absl::Status failure_;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_ENGINE_LOOP_H_
