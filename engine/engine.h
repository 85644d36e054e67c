#ifndef MNEME_ENGINE_ENGINE_H_
#define MNEME_ENGINE_ENGINE_H_

// The engine: sessions, and one thread that computes for all of them. Every public method is
// thread-safe; what it asks for happens on the engine thread, between two steps.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/channel.h"
#include "engine/clock.h"
#include "engine/durability/session_archives.h"
#include "engine/engine_options.h"
#include "engine/model/served_model.h"
#include "engine/request.h"
#include "engine/stats.h"
#include "engine/tokenizer/tokenizer.h"
#include "kernels/backend.h"
#include "storage/checkpoint_files.h"
#include "storage/session_store.h"

namespace mneme {

class Engine {
 public:
  template <typename T>
  using Done = std::function<void(absl::StatusOr<T>)>;
  // Asked while a call waits for its session to come back from the disk: OK, or why its client
  // waits no longer, with which the call then ends. On the engine thread; must not block. May be
  // null.
  using GaveUp = std::function<absl::Status()>;

  struct SessionPage {
    std::vector<SessionInfo> sessions;  // ordered by id
    std::string next_after;             // empty: no more
  };

  // `clock` and `stats` must outlive the engine. `stored`: where sessions are kept, and those that
  // are there; without it they end with the engine. RESOURCE_EXHAUSTED if `cache_bytes` cannot hold
  // even one session's step.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(
      const EngineOptions& options, std::unique_ptr<Backend> backend, ServedModel model,
      const Clock& clock, StatsSink& stats,
      std::optional<SessionStore::Opened> stored = std::nullopt);
  // Ends every request with UNAVAILABLE and joins the engine thread.
  virtual ~Engine() = default;

  virtual const ModelConfig& config() const = 0;
  virtual const GenerationDefaults& defaults() const = 0;
  virtual const EngineOptions& options() const = 0;
  virtual std::string backend_description() const = 0;
  virtual const Tokenizer* tokenizer() const = 0;

  // --- Sessions. `done` is called on the engine thread, exactly once, and must not block: for what
  // changes a session, once that is durable. RESOURCE_EXHAUSTED or UNAVAILABLE if the disk does not
  // take it. ---
  // An empty key.id is replaced by one that cannot be guessed. ALREADY_EXISTS, INVALID_ARGUMENT,
  // RESOURCE_EXHAUSTED (max_sessions).
  virtual void CreateSession(SessionKey key, SessionOptions options, Done<SessionInfo> done) = 0;
  virtual void GetSession(SessionKey key, Done<SessionInfo> done) = 0;
  // The tenant's sessions with ids greater than `after`, at most `limit` (> 0).
  virtual void ListSessions(std::string tenant, std::string after, int limit,
                            Done<SessionPage> done) = 0;
  virtual void UpdateSession(SessionKey key, SessionUpdate update, Done<SessionInfo> done) = 0;
  // A new session `new_id` (empty: one that cannot be guessed) that is as `key` was when its log
  // ended at `at`; what both have read is shared. It inherits neither request ids nor checkpoints'
  // names. If its log lies on the disk the call waits for it. NOT_FOUND, also of the checkpoint;
  // ALREADY_EXISTS, OUT_OF_RANGE;
  // ABORTED if the session is deleted meanwhile; DATA_LOSS, UNAVAILABLE if the log cannot be read.
  virtual void ForkSession(SessionKey key, std::string new_id, HistoryPoint at, GaveUp gave_up,
                           Done<SessionInfo> done) = 0;
  // The session's log ends at `to` again; its epoch grows, and requests that logged more are
  // forgotten, as are names of checkpoints behind it. ABORTED while a request is in flight;
  // otherwise as ForkSession.
  virtual void RollbackSession(SessionKey key, HistoryPoint to, GaveUp gave_up,
                               Done<SessionInfo> done) = 0;
  // Writes the state that is computed, once the session is back, into a checkpoint; `done` is
  // called when that is durable. One with a `name` stays until another takes the name or the
  // session is rolled back before it. NOT_FOUND; FAILED_PRECONDITION where sessions are not kept;
  // ABORTED if the session is deleted, or before it has the name rolled back, meanwhile;
  // UNAVAILABLE if the disk does not take it; INVALID_ARGUMENT for a malformed name;
  // RESOURCE_EXHAUSTED beyond kMaxNamedCheckpoints; why the session does not come back.
  virtual void CheckpointSession(SessionKey key, std::string name, GaveUp gave_up,
                                 Done<CheckpointSummary> done) = 0;
  // The session as an archive, as it is when this is durable. FAILED_PRECONDITION without a store;
  // NOT_FOUND, DATA_LOSS, RESOURCE_EXHAUSTED, UNAVAILABLE.
  virtual void ExportSession(SessionKey key, Done<SessionArchive> done) = 0;
  // A file for the archive of a session that is to be `key` (empty id: one that cannot be guessed),
  // with what has come of it before; one that has a name is kept for a while when it is let go.
  // ALREADY_EXISTS; OUT_OF_RANGE, INVALID_ARGUMENT: see SessionArchives::BeginImport; otherwise as
  // ExportSession.
  virtual void BeginImport(SessionKey key, ImportStart start,
                           Done<std::shared_ptr<ArchiveFile>> done) = 0;
  // Makes a session of the archive, when it is whole. Its state is taken if a server that this one
  // trusts has sealed it and it fits, else it is computed from the log when it is used.
  // ALREADY_EXISTS, INVALID_ARGUMENT, DATA_LOSS, FAILED_PRECONDITION; otherwise as ExportSession.
  virtual void ImportSession(SessionKey key, std::shared_ptr<ArchiveFile> archive,
                             Done<SessionInfo> done) = 0;
  // Its requests end with ABORTED; `done` gets the session as it was.
  virtual void DeleteSession(SessionKey key, Done<SessionInfo> done) = 0;

  // --- Requests. The channel gets the events, the last of them a RequestEnd; also for a request
  // that is refused. ---
  virtual void Append(AppendRequest request, std::shared_ptr<RequestChannel> channel) = 0;
  virtual void Generate(GenerateRequest request, std::shared_ptr<RequestChannel> channel) = 0;
  // Ends the request at the next step boundary with CANCELLED. NOT_FOUND if none is in flight.
  virtual void Cancel(SessionKey key, std::string request_id, Done<std::monostate> done) = 0;

  virtual void GetLoad(Done<EngineLoad> done) = 0;

  // New requests are refused with UNAVAILABLE from now on; those in flight go on. After `grace`
  // they are ended with UNAVAILABLE too. Returns when none is left.
  virtual void Drain(absl::Duration grace) = 0;
  // OK, or why the backend failed; from then on every call answers UNAVAILABLE. `on_failure` of
  // SetFailureCallback is called once, on the engine thread.
  virtual absl::Status health() const = 0;
  virtual void SetFailureCallback(std::function<void(absl::Status)> on_failure) = 0;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_ENGINE_H_
