#ifndef MNEME_ENGINE_DURABILITY_CHECKPOINTER_H_
#define MNEME_ENGINE_DURABILITY_CHECKPOINTER_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/clock.h"
#include "engine/durability/checkpoint_io.h"
#include "engine/durability/disk_usage.h"
#include "engine/durability/session_log.h"
#include "engine/request.h"
#include "engine/session/session.h"
#include "engine/stats.h"
#include "engine/tiers/session_tiers.h"

namespace mneme {

// Which sessions are due for a checkpoint, and the one that is being taken: copied to the host
// between two steps unless the session is parked there, then written beside them. Engine thread
// only.
class Checkpointer {
 public:
  using Done = std::function<void(absl::StatusOr<CheckpointSummary>)>;

  struct Options {
    CheckpointPolicy policy;
    bool with_kv = true;  // without, nothing can be restored from those that are written
  };

  // All must outlive this, but `log` and `tiers`, which are only called by the calls below.
  Checkpointer(SessionLog& log, SessionTiers& tiers, DiskUsage& usage, const StateFormat& format,
               const Options& options, const Clock& clock, StatsSink& stats);
  // Those that were asked for and are not written end with UNAVAILABLE.
  ~Checkpointer();

  // The session, if it is kept, may have computed more.
  void Note(Session& session);
  // It was restored from a checkpoint at this position.
  void OnRestored(Session& session, int64_t position);
  // Its checkpoints have been erased.
  void OnErased(const Session& session);
  // It is about to go, or goes back; what was asked for ends with ABORTED.
  void Forget(const Session& session);
  // Takes one of the session, with a client's `name` unless that is empty, as soon as its state can
  // be copied. The session takes the name only when `done` is told OK.
  void Ask(Session& session, std::string name, Done done);
  // Whether one was asked for and is not written yet.
  bool IsAskedFor(const Session& session) const;
  // Whether the newest one that was written holds all that is computed.
  bool HasAllOf(const Session& session) const;
  // Ends all that was asked for with `status`.
  void GiveUp(const absl::Status& status);

  // Whether Begin would look for a session.
  bool wants_one() const;
  // Between two steps: begins to take one, if one is due and none is under way, of a session that
  // `may_take` allows: one that is parked, or that nobody computes now; that is then leased until
  // SessionTiers::FinishMoves returns it. Null: none.
  Session* Begin(const std::function<bool(const Session&)>& may_take);
  // When the next session becomes due by time.
  absl::Time NextDue() const;

  Checkpointer(const Checkpointer&) = delete;
  Checkpointer& operator=(const Checkpointer&) = delete;

 private:
  // When a session had its last one, and is due for the next; by tokens: in the infinite past.
  struct Mark {
    int64_t position = 0;
    int64_t written = 0;  // position of the newest that was written
    absl::Time time, due = absl::InfiniteFuture();
  };
  struct Asked {
    Session* session;
    std::string name;
    Done done;
  };
  // The one that is under way.
  struct Taken {
    const Session* session;  // null: it was forgotten meanwhile
    NewCheckpoint checkpoint;
    CheckpointSummary summary;
    absl::Time begin;
    Done done;            // may be null
    bool erased = false;  // perhaps: the session's checkpoints were, while it was being taken
  };

  void SetDue(Session& session, Mark* mark, absl::Time due);
  bool BeginWith(Session& session, std::string name, Done done);
  CheckpointInfo InfoOf(const Session& session, std::string name) const;
  void Write(std::shared_ptr<const StateImage> image);
  void End(const absl::Status& status);

  SessionLog& log_;
  SessionTiers& tiers_;
  DiskUsage& usage_;
  const StateFormat format_;
  const Options options_;
  const Clock& clock_;
  StatsSink& stats_;
  std::unordered_map<const Session*, Mark> marks_;
  std::set<std::pair<absl::Time, Session*>> due_;  // of those in marks_ that have changed
  std::deque<Asked> asked_;
  std::optional<Taken> taken_;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_DURABILITY_CHECKPOINTER_H_
