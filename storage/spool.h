#ifndef MNEME_STORAGE_SPOOL_H_
#define MNEME_STORAGE_SPOOL_H_

#include <xxhash.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "storage/crypto.h"
#include "storage/files.h"

namespace rocksdb {
class FSRandomAccessFile;
class FSWritableFile;
}  // namespace rocksdb

namespace mneme {

// Bytes on their way from a client, kept on the disk until they are all there, or to one. They are
// sealed with a key that only this object holds: with it they are gone, whatever is left of the
// file. One thread.
class Spool : public ByteSource {
 public:
  // Of at most `max_bytes`, in a new file at `path`.
  static absl::StatusOr<std::unique_ptr<Spool>> Create(std::shared_ptr<FileSystem> files,
                                                       std::string path, uint64_t max_bytes);
  ~Spool() override;

  // What is there: where a client that lost its connection goes on.
  uint64_t size() const override { return size_; }
  // XXH3 (64 bits) of it.
  uint64_t hash() const { return XXH3_64bits_digest(hash_.get()); }
  // OK, or why no byte can be added any more.
  const absl::Status& failure() const { return failure_; }
  // OUT_OF_RANGE, with the size, unless `offset` is the size; INVALID_ARGUMENT beyond max_bytes,
  // RESOURCE_EXHAUSTED on a full disk, UNAVAILABLE. But for the first these are latched: the
  // archive must begin again.
  absl::Status Append(uint64_t offset, absl::string_view bytes);
  absl::Status ReadAt(uint64_t offset, size_t count, char* destination) const override;

 private:
  struct FreeHash {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };

  Spool(std::shared_ptr<FileSystem> files, std::string path, uint64_t max_bytes);
  absl::Status FlushBlock();
  // Makes block_ the one with this number, which is on the disk.
  absl::Status LoadBlock(uint64_t number) const;

  const std::shared_ptr<FileSystem> files_;
  const std::string path_;
  const uint64_t max_bytes_;
  const SecretKey key_ = SecretKey::Random();
  std::unique_ptr<rocksdb::FSWritableFile> file_;
  absl::Status failure_;
  uint64_t size_ = 0;
  const std::unique_ptr<XXH3_state_t, FreeHash> hash_{XXH3_createState()};
  uint64_t stored_blocks_ = 0;
  std::string last_;  // bytes behind the stored blocks, less than a block
  mutable std::unique_ptr<FileSource>
      source_;                 // of the stored blocks, as many as it was opened with
  mutable std::string block_;  // content of the block read last
  mutable uint64_t block_number_ = UINT64_MAX;
};

}  // namespace mneme

#endif  // MNEME_STORAGE_SPOOL_H_
