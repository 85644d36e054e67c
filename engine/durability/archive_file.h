#ifndef MNEME_ENGINE_DURABILITY_ARCHIVE_FILE_H_
#define MNEME_ENGINE_DURABILITY_ARCHIVE_FILE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/durability/io_thread.h"
#include "storage/spool.h"

namespace mneme {

// An archive on its way to or from a client. Thread-safe: what it is asked for is done in order on
// an I/O thread, where `done` is called, which must not block; after the thread's end it is not
// called any more. With its last owner the bytes are gone.
class ArchiveFile {
 public:
  ArchiveFile(std::unique_ptr<Spool> spool, std::shared_ptr<IoThread> io)
      : spool_(std::move(spool)), io_(std::move(io)) {}
  ~ArchiveFile();

  // Statuses are as ForClient (storage_error.h) has them.
  // Adds bytes behind the first `offset`, which must be all that are there: see Spool.
  void Append(uint64_t offset, std::string bytes, std::function<void(absl::Status)> done);
  // At most `max_bytes` from `offset` on, fewer at the end.
  void Read(uint64_t offset, uint64_t max_bytes,
            std::function<void(absl::StatusOr<std::string>)> done);

  // What has been added so far.
  uint64_t size_bytes() const { return filled_->size_bytes; }
  // Whether no byte can be added any more.
  bool failed() const { return filled_->failed; }
  // Whether it waits for a client to come back: then it counts as none on its way.
  bool left() const { return left_; }
  void set_left(bool left) { left_ = left; }

  // On the I/O thread, whose work must hold this.
  Spool& spool() { return *spool_; }

  ArchiveFile(const ArchiveFile&) = delete;
  ArchiveFile& operator=(const ArchiveFile&) = delete;

 private:
  // What other threads see of the spool.
  struct Filled {
    std::atomic<uint64_t> size_bytes = 0;
    std::atomic<bool> failed = false;
  };

  std::shared_ptr<Spool> spool_;
  const std::shared_ptr<Filled> filled_ = std::make_shared<Filled>();
  std::atomic<bool> left_ = false;
  const std::shared_ptr<IoThread> io_;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_DURABILITY_ARCHIVE_FILE_H_
