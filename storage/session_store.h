#ifndef MNEME_STORAGE_SESSION_STORE_H_
#define MNEME_STORAGE_SESSION_STORE_H_

// Sessions as they lie in a data directory:
//   log/          RocksDB: metadata and log records, sealed with their session's key
//   keys/         a file for each session's key
//   checkpoints/  a directory for each session
//   spool/        archives on their way in and out; removed at the start
// docs/durability.md has the formats and what is promised.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "storage/database.h"
#include "storage/files.h"
#include "storage/key_files.h"
#include "storage/log_writer.h"
#include "storage/session_state.h"
#include "storage/store_id.h"

namespace mneme {

struct StoreOptions {
  std::string data_dir;  // exists, and is locked for this process
  std::shared_ptr<FileSystem> files = RealFileSystem();
  LogWriterOptions log;
};

// What is known of a session before its log is read.
struct ListedSession {
  StoreId id;
  SessionMetadata metadata;
  uint32_t epoch = 0;
  int64_t position = 0;
  absl::Time last_used_time;  // the time of its last log record
  // Why its log cannot be read, if that shows already: DATA_LOSS, or UNAVAILABLE if the disk failed
  // to read. Its epoch and position are then not known.
  absl::Status damage;
};

struct SessionListing {
  std::vector<ListedSession> sessions;
  // Sessions of which not even the name can be read, and why: as ListedSession::damage. They are
  // left as they are, and can be deleted.
  std::vector<std::pair<StoreId, absl::Status>> damaged;
};

// Any thread.
class SessionStore {
 public:
  struct Opened {
    std::unique_ptr<SessionStore> store;
    SessionListing listing;  // of all sessions that are there
  };
  // Finishes deletions that a crash has cut short. DATA_LOSS if the log as a whole cannot be
  // opened; RESOURCE_EXHAUSTED, UNAVAILABLE as the disk says.
  static absl::StatusOr<Opened> Open(StoreOptions options);

  // See LogWriter.
  void Commit(LogBatch batch, LogWriter::Done done) {
    writer_->Commit(std::move(batch), std::move(done));
  }
  Durability durability() const { return options_.log.durability; }
  LogWriterHealth health() const { return writer_->health(); }

  // All that was committed of a session, and has completed. NOT_FOUND, DATA_LOSS; UNAVAILABLE
  // while the disk fails.
  absl::StatusOr<SessionState> Load(const StoreId& id) const {
    return ReadLog(*database_, *keys_, id);
  }

  KeyFiles& keys() { return *keys_; }
  const std::shared_ptr<FileSystem>& files() const { return options_.files; }
  // Where the session's checkpoints lie.
  std::string CheckpointDirectory(const StoreId& id) const;
  // For a Spool; differs each time.
  std::string NewSpoolPath() const;

 private:
  explicit SessionStore(StoreOptions options) : options_(std::move(options)) {}

  absl::Status OpenParts();
  absl::Status EraseCheckpoints(const StoreId& id) const;
  // The session, if it is one; `next_number` is that of its next log record.
  absl::StatusOr<ListedSession> ReadListed(const StoreId& id, uint64_t* next_number) const;
  // What the last record of its log says.
  absl::Status ReadLogEnd(const SecretKey& key, ListedSession* session,
                          uint64_t* next_number) const;
  absl::StatusOr<SessionListing> List(absl::flat_hash_map<StoreId, uint64_t>* next_numbers) const;
  // Sessions with records and without a key.
  std::vector<StoreId> WithoutKey(const std::vector<StoreId>& keys) const;

  const StoreOptions options_;
  std::unique_ptr<KeyFiles> keys_;
  std::unique_ptr<Database> database_;
  std::unique_ptr<LogWriter> writer_;  // last: ends first
};

}  // namespace mneme

#endif  // MNEME_STORAGE_SESSION_STORE_H_
