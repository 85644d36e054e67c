#ifndef MNEME_ENGINE_DURABILITY_JOURNAL_H_
#define MNEME_ENGINE_DURABILITY_JOURNAL_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "engine/session/request_records.h"
#include "engine/session/session.h"
#include "storage/log_writer.h"
#include "storage/store_id.h"

namespace mneme {

// What the log has of a session: all before this is written, or on its way.
struct LoggedSession {
  StoreId id;
  // Of a fork made in this process: its parent, whose checkpoints may fit.
  std::optional<StoreId> origin;
  int64_t position = 0;
  size_t updates = 0;
  std::optional<int64_t> open_turn;
  absl::Time time;  // of its last use that the log knows of
  // The request whose record was written last, as it was then.
  std::shared_ptr<const RequestRecord> request;
  int64_t request_end = 0;
  size_t append_logprobs = 0, generated_logprobs = 0;
  bool request_complete = false;

  uint64_t last_commit = 0;  // number of the last batch that it is in
};

// Finds out what has happened to sessions since the last batch. Knows the sessions that are kept,
// not the throw-away ones. Engine thread only.
class Journal {
 public:
  // `log_meaning`: see LogMeaning.
  explicit Journal(uint64_t log_meaning) : log_meaning_(log_meaning) {}

  // A session that is in the store, not loaded yet.
  void Adopt(const Session& session, const StoreId& id);
  // A session of which the log has all is not loaded any more.
  void Unload(const Session& session);
  // A session that is loaded: the log has it as it is.
  void OnLoaded(const Session& session, const SessionLogs& logs);
  // A new session, to whose log `updates` belong; those of a fork may be yet to be computed.
  void Create(const Session& session, absl::Span<const UpdatePoint> updates = {},
              const Session* parent = nullptr);
  // A new session that is loaded, whose log `events` make; so many updates are in it.
  void Import(const Session& session, std::vector<SessionEvent> events, size_t updates);
  // It was rolled back; so many updates are left in its log.
  void RollBack(const Session& session, size_t updates);
  // Its labels, its time to live or, with `controls`, its controls were set.
  void Update(const Session& session, bool controls);
  void Delete(const Session& session);
  // Something may have happened to it; `request` has come so far, or is null.
  void Note(const Session& session, std::shared_ptr<const RequestRecord> request);

  // What has happened, as one batch with this number; empty if nothing has. Uses that have changed
  // nothing are in it for the sessions' times to live, if `with_uses`, else they are kept for
  // later; nobody waits for them.
  LogBatch Take(uint64_t number, bool with_uses);
  // Null for a session that is not kept.
  std::shared_ptr<const LoggedSession> Find(const Session& session) const;

 private:
  LoggedSession* FindLogged(const Session& session);
  // Adds what has happened to it, and `more`, to the batch.
  void Collect(const Session& session, LoggedSession* logged,
               const std::shared_ptr<const RequestRecord>& request,
               std::vector<SessionEvent> more = {});
  // A record of it, which says when it was used.
  static LogEvents RecordOf(const Session& session, LoggedSession* logged,
                            std::vector<SessionEvent> events);
  void AddRecord(const Session& session, LoggedSession* logged, std::vector<SessionEvent> events);

  const uint64_t log_meaning_;
  std::unordered_map<const Session*, std::shared_ptr<LoggedSession>> sessions_;
  std::vector<std::pair<const Session*, std::shared_ptr<const RequestRecord>>> noted_;
  // Uses that have changed nothing; gone when their session gets another record.
  std::unordered_map<const Session*, LogEvents> used_;
  LogBatch batch_;
  std::vector<std::shared_ptr<LoggedSession>> in_batch_;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_DURABILITY_JOURNAL_H_
