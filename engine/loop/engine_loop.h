#ifndef MNEME_ENGINE_LOOP_ENGINE_LOOP_H_
#define MNEME_ENGINE_LOOP_ENGINE_LOOP_H_

// What the engine thread owns and does: the sessions, the requests in flight, and the steps.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/durability/checkpointer.h"
#include "engine/durability/disk_tier.h"
#include "engine/durability/session_log.h"
#include "engine/engine.h"
#include "engine/jobs/job.h"
#include "engine/jobs/job_queues.h"
#include "engine/model/model.h"
#include "engine/scheduling/step_scheduler.h"
#include "engine/scheduling/tenants.h"
#include "engine/session/held_calls.h"
#include "engine/session/session_table.h"
#include "engine/session/update_queue.h"
#include "engine/tiers/session_tiers.h"

namespace mneme {

// One thread only: the engine thread.
class EngineLoop {
 public:
  // `tiers` are of `pools`. `stored`: what is on the disk; without it nothing is kept. `wake` makes
  // the engine thread call RunOnce when the disk has done something; any thread calls it.
  EngineLoop(std::unique_ptr<CachePools> pools, std::unique_ptr<Model> model,
             std::unique_ptr<SessionTiers> tiers, const JobContext& context,
             std::optional<SessionStore::Opened> stored = std::nullopt,
             std::function<void()> wake = nullptr);
  ~EngineLoop();

  // Works on what is there: begins requests, runs one step if anything can be computed, ends what
  // is done. False if nothing could be done before something new comes or NextWake.
  bool RunOnce();
  // When a deadline, a reader's time or a session's time to live ends next.
  absl::Time NextWake() const;

  // Calls `then` when the session has come back as far as `until` says, at once if it is: OK. Or
  // why it cannot, or may not be changed now. Until then the loop brings it back, beside all else.
  void WhenBack(const SessionKey& key, HeldCalls::Until until, HeldCalls::GaveUp gave_up,
                const HeldCalls::Then& then);

  // --- Sessions; see Engine. What these say is durable when log().WhenDurable tells so. ---
  absl::StatusOr<SessionInfo> CreateSession(SessionKey key, SessionOptions options);
  absl::StatusOr<SessionInfo> GetSession(const SessionKey& key) const;
  Engine::SessionPage ListSessions(const std::string& tenant, const std::string& after,
                                   int limit) const;
  absl::StatusOr<SessionInfo> UpdateSession(const SessionKey& key, const SessionUpdate& update);
  absl::StatusOr<SessionInfo> DeleteSession(const SessionKey& key);
  // Forks and rollbacks are of sessions that WhenBack has given.
  absl::StatusOr<SessionInfo> ForkSession(const SessionKey& key, const std::string& new_id,
                                          const HistoryPoint& at);
  absl::StatusOr<SessionInfo> RollbackSession(const SessionKey& key, const HistoryPoint& to);
  void ExportSession(const SessionKey& key, const Engine::Done<SessionArchive>& done);
  void BeginImport(const SessionKey& key, const ImportStart& start,
                   const Engine::Done<std::shared_ptr<ArchiveFile>>& done);
  void ImportSession(const SessionKey& key, const std::shared_ptr<ArchiveFile>& archive,
                     const Engine::Done<SessionInfo>& told);
  void CheckpointSession(const SessionKey& key, const std::string& name,
                         const Checkpointer::Done& done, HeldCalls::GaveUp gave_up = nullptr);
  // Those that hold device memory for no request in flight, or for one that waits for its client,
  // the one not used for longest first: candidates to leave the device.
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
  // Also those that have ended, while the log does not have all that their clients will be told.
  int64_t requests_in_flight() const { return queues_.size() + log_.waiting(); }
  // Of sessions' states between tiers. When one has ended, RunOnce has something to do; a failed
  // loop has not.
  int64_t moves_in_flight() const { return failure_.ok() ? tiers_->moves() : 0; }
  SessionLog& log() { return log_; }
  // When a request that the full queue refuses now should come again.
  absl::Duration retry_delay() const;
  // Refuses new requests with `status` from now on.
  void Refuse(const absl::Status& status);
  // Ends every request with `status`.
  void EndAll(const absl::Status& status);
  // OK, or why the backend failed. A failed loop refuses everything.
  const absl::Status& failure() const { return failure_; }

 private:
  struct Ready {
    Job* job;
    Candidate candidate;
  };
  // The first request of a queue, and what it could do; nothing: its session is not on the device.
  struct Asked {
    Job* job;
    std::optional<Candidate> candidate;
  };

  // RESOURCE_EXHAUSTED if the queue has no room for one request more.
  absl::Status Admit(const RequestHeader& header, int64_t input_tokens);
  // The session of a new request; ABORTED if the same request is in flight.
  absl::StatusOr<Session*> FindForRequest(const RequestHeader& header, int64_t input_tokens,
                                          bool logs);
  // Queues a job that could ever be served, and tells the client of any other.
  void Push(std::unique_ptr<Job> job);
  void GenerateThrowAway(GenerateRequest request, std::shared_ptr<RequestChannel> channel);

  // Begins what can begin, runs a step, ends what is done; false if nothing could be done.
  bool Work();
  // Ends a job with `status`, and those behind it if it was to bring their session back.
  void EndJob(const Job& job, const absl::Status& status);
  // Ends all jobs of a session.
  void EndRequests(const Session& session, const absl::Status& status);
  // Ends what was cancelled or has passed its deadline, and brings no session back that nobody
  // waits for any more; true if an expired session was deleted.
  bool Sweep();
  bool DeleteExpired(absl::Time now);
  // Asks the first request of each queue what it can do, in the order of their arrival.
  std::vector<Asked> AskHeads();
  // Those of them that may take part in the next step: streams begin while others keep their pace,
  // and memory is given in the order of arrival: while one waits for it, no later one gets more
  // than it has.
  std::vector<Ready> CollectReady();
  // Sessions with chunks to be learnt that the next step may take along: no request of theirs could
  // take part in it.
  std::vector<Session*> CollectUpdates(const std::vector<Ready>& ready) const;
  Candidate WithTenant(Candidate candidate, const Job& job);
  // Brings the job's session to the device, as the job's turn to get memory allows.
  void BringBack(Job* job);
  // Begins to take a checkpoint, if one is due.
  void BeginCheckpoint();
  // True if states have moved.
  bool FinishMoves();
  // Parks idle sessions for the first request that waits for memory, or makes one leave memory for
  // the disk; true if one has.
  bool MakeRoom();
  // Erases checkpoints when they take too much of the disk.
  void TrimDisk();
  // True if a session has left memory.
  bool FinishLeaving();
  // What is to become free for it.
  int64_t WantedBytes() const;
  // If all that could run waits for memory that nobody will give back: parks the sessions of later
  // requests for the first one's sake, or else ends that.
  void RelieveMemory();
  void RunStep(const std::vector<Ready>& ready, const std::vector<Session*>& updates);
  StepPlan Plan(const std::vector<Ready>& ready, const std::vector<Session*>& updates);
  // Runs a step and reports it; false if the backend failed.
  bool RunModel(absl::Span<SequenceStep> steps);
  // Ends the requests that are done, and counts those in flight anew.
  void Retire();
  void CountRequests();
  SessionInfo InfoOf(const Session& session) const;
  // A session that may be forked, rolled back or written now.
  absl::StatusOr<Session*> FindForCall(const SessionKey& key) const;
  // What was taken becomes the session's checkpoint `name`, if there is one; `done` is told when
  // that is durable.
  void NameCheckpoint(const SessionKey& key, const std::string& name,
                      const absl::StatusOr<CheckpointSummary>& taken,
                      const Checkpointer::Done& done);
  bool IsBack(const HeldCalls::Call& call);
  // Answers the held calls whose sessions are back or whose clients have given up, and goes on
  // bringing back those of the others; false if there was nothing to do.
  bool AnswerHeld();
  // Begins to bring the call's session back, unless that is under way: true.
  bool GoOnBringing(const HeldCalls::Call& call);
  // Whether a request of the session is in flight, beside what brings it back.
  bool HasRequests(const Session& session) const;
  // OK if archives can be made and taken.
  absl::Status CheckArchives() const;
  // A new session of what an archive holds; see Engine::ImportSession.
  absl::StatusOr<Session*> Import(const SessionKey& key, ArchivedSession archived);
  // Begins to bring a session back that has no job yet.
  void PushRestore(Session* session, Priority priority);
  // Whether requests or calls of it wait.
  bool IsWanted(const Session& session) const { return queues_.Has(session) || held_.Has(session); }
  // Whether one of them could go on if it were here.
  bool IsWaitedFor(const Session& session) const;
  void EndSession(Session* session, const absl::Status& status);
  void Fail(const absl::Status& status);

  const std::unique_ptr<CachePools> pools_;
  const std::unique_ptr<Model> model_;
  JobContext context_;
  // Before log_, whose end may still call them.
  const std::unique_ptr<DiskUsage> usage_;
  const std::unique_ptr<Checkpointer> checkpointer_;
  SessionLog log_;
  SessionTable sessions_;
  JobQueues queues_;
  HeldCalls held_;       // of sessions in sessions_
  UpdateQueue updates_;  // of sessions in sessions_
  StepScheduler scheduler_;
  Tenants tenants_;
  DecayingRate ended_, tokens_in_;  // requests; input tokens computed
  int64_t counted_ended_ = 0;       // of queues_.ended()
  uint64_t arrivals_ = 0;
  uint64_t steps_ = 0;
  std::optional<absl::Time> busy_since_;  // the end of the last step, unless it ran dry since
  absl::Time next_expiry_ = absl::InfiniteFuture();  // no session expires before
  // Could run but for memory, in the order of arrival; of the last CollectReady.
  std::vector<Job*> starved_;
  absl::Status refusal_;
  absl::Status failure_;
  const std::unique_ptr<SessionTiers> tiers_;  // its thread ends before sessions do
  DiskTier disk_;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_LOOP_ENGINE_LOOP_H_
