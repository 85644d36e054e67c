#ifndef MNEME_STORAGE_LOG_WRITER_H_
#define MNEME_STORAGE_LOG_WRITER_H_

// The one writer of sessions' logs: takes batches from the engine, writes all that have come in one
// go, and says when they are durable.

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "storage/database.h"
#include "storage/key_files.h"
#include "storage/records.h"
#include "storage/session_state.h"
#include "storage/store_id.h"

namespace mneme {

// What a batch's completion promises.
enum class Durability : uint8_t {
  kSync,   // it survives a loss of power
  kAsync,  // it survives the end of the process; soon after sync_interval also a loss of power
  kNone,   // as kAsync, but nothing is to wait for it, deletions excepted
};

// --- What a batch consists of. ---

// A new session, with a new id. Nothing else may name the session before it.
struct CreateSession {
  StoreId id;
  SessionMetadata metadata;
};
struct SetMetadata {
  StoreId id;
  SessionMetadata metadata;
};
// What happened to a session in one step, and where that has led; without events: it was used.
struct LogEvents {
  StoreId id;
  uint32_t epoch = 0;
  int64_t position = 0;
  absl::Time time;
  std::vector<SessionEvent> events;
};
// Its completion means, whatever the durability, that the session's key is destroyed.
struct DeleteSession {
  StoreId id;
};

using LogOperation = std::variant<CreateSession, SetMetadata, LogEvents, DeleteSession>;
using LogBatch = std::vector<LogOperation>;

struct LogWriterOptions {
  Durability durability = Durability::kSync;
  // Of kAsync and kNone: nothing that was written longer ago stays unsynced, but for the time that
  // the disk takes.
  std::chrono::milliseconds sync_interval{100};
  std::chrono::milliseconds retry_delay{250};  // after a write that failed
  // A session's log is written as one record when it has grown by so many and nothing waits.
  int64_t compact_after_records = 4096;
  // Of one record's events; what is longer is written as several, together.
  size_t max_record_bytes = size_t{64} << 20;
  // What sync_interval is measured with. Called on the writer's thread.
  std::function<std::chrono::steady_clock::time_point()> now = std::chrono::steady_clock::now;
};

struct LogWriterHealth {
  absl::Status status;  // why nothing can be written now; OK: it can
  int64_t pending_batches = 0;
  int64_t logs_to_compact = 0;
};

// Commit and health: any thread.
class LogWriter {
 public:
  using Done = std::function<void(const absl::Status&)>;

  // Of the sessions that are there, `next_numbers` has the numbers of their next log records. All
  // arguments' owners must outlive it.
  LogWriter(Database& database, KeyFiles& keys, EraseFiles erase_files,
            const absl::flat_hash_map<StoreId, uint64_t>& next_numbers,
            const LogWriterOptions& options);
  // Tries once more to write what is left; what cannot be written ends with UNAVAILABLE.
  ~LogWriter();

  // Batches are written in this order, each wholly or not at all. `done` is called on the writer's
  // thread, when the batch can be read, and must be quick. A write that fails is repeated until it
  // succeeds: `done` comes later, and not with an error unless the writer ends before.
  void Commit(LogBatch batch, Done done);

  LogWriterHealth health() const;

  LogWriter(const LogWriter&) = delete;
  LogWriter& operator=(const LogWriter&) = delete;

 private:
  struct Pending {
    LogBatch batch;
    Done done;
  };
  // A group of batches, taken apart: what must be done, in this order. Each step may be repeated.
  struct Work {
    struct Record {
      StoreId id;
      std::string key, plaintext;
    };
    std::vector<StoreId> creations;
    std::vector<Record> records;
    // Log records before this number are contained in it.
    std::optional<std::pair<StoreId, uint64_t>> compacted;
    std::vector<StoreId> deletions;
  };

  void Run();
  // Waits for batches; syncs in the meantime what was written without, when that is due. False at
  // the end.
  bool TakeGroup(std::vector<Pending>* group);
  Work Prepare(const std::vector<Pending>& group);
  void NoteGrown(const StoreId& id);
  // Writes logs that have grown as one record each, as long as no batch comes.
  void CompactWhileIdle();
  absl::StatusOr<Work> PrepareCompaction(const StoreId& id);
  absl::Status WriteUntilDone(const Work& work);
  absl::Status Write(const Work& work);
  absl::Status SyncNow();
  // How long what is not synced may stay so; zero or less: no longer.
  std::chrono::nanoseconds UntilSync() const;
  // `status`; after a failed operation of the database it is recovered before the next.
  absl::Status FromDatabase(absl::Status status);
  absl::Status RecoverIfNeeded();
  // What health() reports.
  void Note(const absl::Status& status);

  Database& database_;
  KeyFiles& keys_;
  const EraseFiles erase_files_;
  const LogWriterOptions options_;

  // Of the writer's thread.
  struct Tail {
    uint64_t next_number = 0;
    int64_t records = 0;  // since the start, or since they were compacted
  };
  absl::flat_hash_map<StoreId, Tail> tails_;
  bool must_recover_ = false;
  // When the first write was made that is not synced; of a sync that failed, when that was.
  std::optional<std::chrono::steady_clock::time_point> unsynced_since_;
  absl::Status gave_up_;  // what could not be written at the end; nothing may come behind it

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Pending> queue_;
  int64_t in_work_ = 0;        // batches of the group being written
  std::deque<StoreId> grown_;  // logs to be compacted
  absl::Status status_;
  bool ending_ = false;

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace mneme

#endif  // MNEME_STORAGE_LOG_WRITER_H_
