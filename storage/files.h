#ifndef MNEME_STORAGE_FILES_H_
#define MNEME_STORAGE_FILES_H_

// Files through RocksDB's FileSystem, the one seam between this room and the disk: log,
// checkpoints, key files and archives all pass through it, so a test replaces it once. Any thread;
// a file belongs to one.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

// RocksDB's own, declared here so that this header brings none of its.
namespace rocksdb {
class FileSystem;
class FSRandomAccessFile;
class FSWritableFile;
class Status;
}  // namespace rocksdb

namespace mneme {

using FileSystem = rocksdb::FileSystem;

// The files of the operating system.
std::shared_ptr<FileSystem> RealFileSystem();

// RESOURCE_EXHAUSTED for a full disk, NOT_FOUND, DATA_LOSS for what is corrupt; anything else that
// fails (EIO, a read-only or missing disk) is UNAVAILABLE: it may come back. `what` says what was
// being done, with the path.
absl::Status FromRocksDb(const rocksdb::Status& status, const std::string& what);

// Where bytes go, in order.
class ByteSink {
 public:
  virtual ~ByteSink() = default;
  virtual absl::Status Append(absl::string_view bytes) = 0;
};

// Bytes that are there to be read, at any place.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  virtual uint64_t size() const = 0;
  // Exactly `count` bytes from `offset` on; DATA_LOSS if the source ends before.
  virtual absl::Status ReadAt(uint64_t offset, size_t count, char* destination) const = 0;
};

// A new file that takes its name when it is whole: written to PATH.tmp, synced, renamed, and its
// directory synced. Without Commit nothing of it stays.
class AtomicFile : public ByteSink {
 public:
  static absl::StatusOr<std::unique_ptr<AtomicFile>> Create(std::shared_ptr<FileSystem> files,
                                                            const std::string& path);
  // What a crash has left of files in `directory` that were never whole.
  static absl::Status RemoveUnfinished(FileSystem& files, const std::string& directory);
  ~AtomicFile() override;

  absl::Status Append(absl::string_view bytes) override;
  // After OK the file survives a loss of power. Once.
  absl::Status Commit();

 private:
  AtomicFile(std::shared_ptr<FileSystem> files, std::string path);

  const std::shared_ptr<FileSystem> files_;
  const std::string path_;
  std::unique_ptr<rocksdb::FSWritableFile> file_;  // null: committed, or failed
};

class FileSource : public ByteSource {
 public:
  // NOT_FOUND, UNAVAILABLE.
  static absl::StatusOr<std::unique_ptr<FileSource>> Open(FileSystem& files,
                                                          const std::string& path);
  ~FileSource() override;

  uint64_t size() const override { return size_; }
  absl::Status ReadAt(uint64_t offset, size_t count, char* destination) const override;

 private:
  FileSource(std::string path, uint64_t size, std::unique_ptr<rocksdb::FSRandomAccessFile> file);

  const std::string path_;
  const uint64_t size_;
  const std::unique_ptr<rocksdb::FSRandomAccessFile> file_;
};

// Makes a directory, and its name durable, unless it is there. Its parent must be.
absl::Status EnsureDirectory(FileSystem& files, const std::string& path);
// Makes the names in a directory durable.
absl::Status SyncDirectory(FileSystem& files, const std::string& path);
// Names of what is in a directory, without "." and "..", sorted; none if it is not there.
absl::StatusOr<std::vector<std::string>> ListDirectory(FileSystem& files, const std::string& path);
// NOT_FOUND, UNAVAILABLE.
absl::StatusOr<int64_t> FileBytes(FileSystem& files, const std::string& path);
// Removes a file, or a directory with the files in it; OK if it is not there. The parent is not
// synced.
absl::Status RemoveFile(FileSystem& files, const std::string& path);
absl::Status RemoveDirectory(FileSystem& files, const std::string& path);
// Overwrites a file with zeros, syncs, removes it and syncs its directory. OK if it is not there.
absl::Status EraseFile(FileSystem& files, const std::string& path);

}  // namespace mneme

#endif  // MNEME_STORAGE_FILES_H_
