#ifndef MNEME_STORAGE_DATABASE_H_
#define MNEME_STORAGE_DATABASE_H_

// RocksDB as this room uses it: an ordered map of bytes with atomic batches.

#include <functional>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "storage/files.h"

namespace rocksdb {
class DB;
class Env;
class WriteBatch;
}  // namespace rocksdb

namespace mneme {

// One thread writes and recovers; any thread reads.
class Database {
 public:
  // DATA_LOSS if what is there cannot be opened.
  static absl::StatusOr<std::unique_ptr<Database>> Open(std::shared_ptr<FileSystem> files,
                                                        std::string path);
  ~Database();

  // All of `batch` or nothing, also across a crash. With `sync` it survives a loss of power.
  // After an error it is not known whether it is there: Recover before writing again.
  absl::Status Write(rocksdb::WriteBatch* batch, bool sync);
  // Everything written so far survives a loss of power.
  absl::Status Sync();
  // After a failed write: what was written is written once more, into new files that are synced,
  // for a sync that failed once cannot be trusted when repeated. As long as the disk takes no
  // writes at all this fails and changes nothing, and what is there can still be read.
  absl::Status Recover();

  absl::StatusOr<std::optional<std::string>> Get(absl::string_view key) const;
  // The last entry whose key begins with `prefix`.
  absl::StatusOr<std::optional<std::pair<std::string, std::string>>> Last(
      absl::string_view prefix) const;
  // Calls `visit` for each entry whose key begins with `prefix`, in order, until it fails.
  using Visitor = std::function<absl::Status(absl::string_view key, absl::string_view value)>;
  absl::Status Scan(absl::string_view prefix, const Visitor& visit) const;

 private:
  Database(std::shared_ptr<FileSystem> files, std::string path);
  absl::Status OpenNow();
  // Whether the disk takes writes and has room to recover.
  absl::Status Probe() const;
  absl::Status Closed() const;

  const std::shared_ptr<FileSystem> files_;
  const std::string path_;
  const std::unique_ptr<rocksdb::Env> env_;  // RocksDB's threads, and `files`
  mutable std::shared_mutex mutex_;          // exclusively while db_ changes
  std::unique_ptr<rocksdb::DB> db_;          // null: recovering has failed
};

}  // namespace mneme

#endif  // MNEME_STORAGE_DATABASE_H_
