#ifndef MNEME_STORAGE_KEY_FILES_H_
#define MNEME_STORAGE_KEY_FILES_H_

// Each session's key, in a file of its own. Whoever has no key file has no session: destroying it
// destroys all that was ever sealed with it, wherever copies of that lie.

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/crypto.h"
#include "storage/files.h"
#include "storage/store_id.h"

namespace mneme {

// Any thread.
class KeyFiles {
 public:
  // Of all keys in `directory`, which is made if need be.
  static absl::StatusOr<std::unique_ptr<KeyFiles>> Open(std::shared_ptr<FileSystem> files,
                                                        std::string directory);

  // The names of the key files that are there, sorted.
  absl::StatusOr<std::vector<StoreId>> List() const;
  // Draws a key; after OK its file survives a loss of power. Again for the same id: the same key.
  absl::Status Create(const StoreId& id);
  // Reads the file, the first time. NOT_FOUND; DATA_LOSS if it is not whole.
  absl::StatusOr<SecretKey> Get(const StoreId& id);
  // After OK the key is nowhere on the disk; also if it was not there.
  absl::Status Destroy(const StoreId& id);

 private:
  KeyFiles(std::shared_ptr<FileSystem> files, std::string directory)
      : files_(std::move(files)), directory_(std::move(directory)) {}
  std::string PathOf(const StoreId& id) const;
  absl::StatusOr<SecretKey> Read(const StoreId& id) const;

  const std::shared_ptr<FileSystem> files_;
  const std::string directory_;
  std::mutex mutex_;
  absl::flat_hash_map<StoreId, SecretKey> keys_;  // read or created
};

// Reads a key that an operator made, for sealing archives: a file of 64 hexadecimal digits, as
// `openssl rand -hex 32` prints. INVALID_ARGUMENT, NOT_FOUND.
absl::StatusOr<SecretKey> ReadOperatorKey(FileSystem& files, const std::string& path);

}  // namespace mneme

#endif  // MNEME_STORAGE_KEY_FILES_H_
