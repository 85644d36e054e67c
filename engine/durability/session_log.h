#ifndef MNEME_ENGINE_DURABILITY_SESSION_LOG_H_
#define MNEME_ENGINE_DURABILITY_SESSION_LOG_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/channel.h"
#include "engine/clock.h"
#include "engine/durability/checkpoint_io.h"
#include "engine/durability/io_thread.h"
#include "engine/durability/journal.h"
#include "engine/durability/mailbox.h"
#include "engine/durability/outbox.h"
#include "engine/durability/session_archives.h"
#include "engine/loading/config.h"
#include "engine/session/session.h"
#include "engine/session/session_table.h"
#include "engine/stats.h"
#include "storage/session_store.h"

namespace mneme {

// The engine's side of the session log: collects what happens to sessions, commits it once between
// two steps, and holds back what clients are told of it until the log has it. Without a store
// nothing is logged and everything is told at once. Engine thread only.
class SessionLog {
 public:
  // Logging jobs offer no rows while clients wait for so many commits: the outbox stays small.
  static constexpr uint64_t kMaxStepsAhead = 8;
  // Nor while so many are not written, though nobody waits for them (Durability::kNone).
  static constexpr uint64_t kMaxStepsUnwritten = 256;
  // A disk that has not taken a commit for so long is reported as failed until it has.
  static constexpr absl::Duration kStallLimit = absl::Seconds(10);

  // What a session's log holds, once it is read. UNAVAILABLE: it cannot be read now; any other
  // error stays.
  struct Loading {
    std::optional<absl::StatusOr<SessionLogs>> result;
    StoredImage stored;  // what need not be computed again
  };

  // `log_meaning`: see LogMeaning. `format`: of checkpoints that are restored from. `wake` makes
  // the engine thread call Receive; any thread calls it. The clock must outlive the log.
  SessionLog(std::optional<SessionStore::Opened> stored, uint64_t log_meaning,
             const StateFormat& format, const Clock& clock, std::function<void()> wake);
  ~SessionLog();
  // Writes what is to be written and ends the threads; what was to come of their work is told of
  // here, so that whom it concerns must be there still. What the disk does not take now ends with
  // UNAVAILABLE. The end, if it has not come before.
  void Stop();

  // Puts the stored sessions into the table, parked. Once.
  void ListInto(SessionTable* sessions);

  // --- What happens to sessions; see Journal. ---
  void Create(const Session& session, absl::Span<const UpdatePoint> updates = {},
              const Session* parent = nullptr);
  void Import(const Session& session, std::vector<SessionEvent> events, size_t updates);
  void RollBack(const Session& session, size_t updates);
  void Update(const Session& session, bool controls);
  void Delete(const Session& session);
  void Note(const Session& session, std::shared_ptr<const RequestRecord> request);
  // Commits what has happened since the last call.
  void Commit();

  // --- What clients are told of it. ---
  void Send(const Session& session, std::shared_ptr<RequestChannel> channel, RequestEvent event);
  // Tells when all that has happened so far is durable.
  void WhenDurable(Tell tell);
  // Takes what the disk has done meanwhile, and tells what waited for it; false if it was nothing.
  bool Receive();
  // When Receive has something to do unless something happens before.
  absl::Time NextWake() const {
    return archives_ ? archives_->NextExpiry() : absl::InfiniteFuture();
  }
  // Ends all that waits with `status`: the log may have it or not.
  void GiveUp(const absl::Status& status);
  // Events and answers that wait.
  int64_t waiting() const { return outbox_.size() + static_cast<int64_t>(told_.size()); }

  // --- Flow. ---
  // OK, or why nothing can be logged now: RESOURCE_EXHAUSTED for a full disk, UNAVAILABLE for one
  // that fails or hangs; retryable.
  absl::Status Health() const;
  // Whether requests that log may compute: the log can be written, and is not too far behind.
  bool MayLog() const;
  // Whether the log has all of the session: one that does not log tells at once what it computes,
  // and so may not compute before.
  bool HasAllOf(const Session& session) const;
  // Whether all of a session that is kept can be read, whatever the durability promises. If not,
  // the next Receive after which it can has something.
  bool IsWritten(const Session& session);
  // Commits under way, or letters not received.
  bool busy() const {
    return !commit_times_.empty() || loads_ > 0 || works_ > 0 ||
           (archives_ && archives_->under_way() > 0);
  }
  void AddTo(EngineLoad* load) const;

  // --- Sessions come back. ---
  // Reads a session's log, validates it for the model `config`, which must outlive this, and reads
  // the newest state that is kept of it, at its present position at most: all on a thread of its
  // own.
  std::shared_ptr<Loading> Load(const Session& session, const ModelConfig& config);
  // The session is about to get these logs.
  void OnLoaded(const Session& session, const SessionLogs& logs) {
    journal_.OnLoaded(session, logs);
  }

  // Gives back what memory holds of a session that is kept and of which the log has all.
  void Unload(Session* session) {
    session->Unload();
    journal_.Unload(*session);
  }

  // --- Archives. ---
  // Makes them possible, if there is a store. `config` must outlive this. Once.
  void OpenArchives(const ArchiveOptions& options, const ModelConfig& config,
                    uint64_t model_fingerprint);
  // Null: there is no store.
  SessionArchives* archives() const { return archives_.get(); }
  // The session as it is now, to be archived when that is durable.
  SessionArchives::Subject Describe(const Session& session) const;

  // How many Load calls are under way.
  int64_t loads() const { return loads_; }

  // --- Beside it. ---
  bool Keeps(const Session& session) const { return journal_.Find(session) != nullptr; }
  // Of a session that it keeps.
  StoreId IdOf(const Session& session) const { return journal_.Find(session)->id; }
  // Runs `work` on the thread that reads logs, then what it returns in Receive. Only with a store.
  using Work = std::function<Mailbox::Letter(SessionStore& store)>;
  void RunOnDisk(Work work);

  SessionLog(const SessionLog&) = delete;
  SessionLog& operator=(const SessionLog&) = delete;

 private:
  // Something to be told, of a session, or of everything before it if that is null.
  using Told = std::pair<std::shared_ptr<const LoggedSession>, Tell>;

  void CommitBatch(LogBatch batch);
  void OnWritten(uint64_t number, const absl::Status& status);
  // All commits up to `number` are written, or never will be: tells what waits for no other.
  void Complete(uint64_t number, const absl::Status& status);

  const uint64_t log_meaning_;
  const StateFormat format_;
  const Clock& clock_;
  const std::shared_ptr<Mailbox> mailbox_;
  SessionListing listing_;
  std::unique_ptr<SessionStore> store_;  // null: nothing is kept
  bool tells_at_once_ = false;           // Durability::kNone
  std::unique_ptr<IoThread> io_;         // reads from the store, and writes checkpoints
  std::unique_ptr<SessionArchives> archives_;

  Journal journal_;
  Outbox outbox_;
  std::vector<Told> told_;               // since the last Commit
  uint64_t last_ = 0, completed_ = 0;    // numbers of commits
  uint64_t written_ = 0;                 // all up to it can be read
  std::deque<absl::Time> commit_times_;  // of those that are not written
  std::deque<uint64_t> deletions_;       // those of them in which sessions are deleted
  int64_t loads_ = 0, works_ = 0;        // under way
};

}  // namespace mneme

#endif  // MNEME_ENGINE_DURABILITY_SESSION_LOG_H_
