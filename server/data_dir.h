#ifndef MNEME_SERVER_DATA_DIR_H_
#define MNEME_SERVER_DATA_DIR_H_

#include <filesystem>

#include "absl/status/statusor.h"

namespace mneme {

// A server's data directory, held exclusively as long as this lives (also against a crash: the
// system releases the lock with the process). Move-only.
class DataDir {
 public:
  // Makes the directory if need be and locks it. FAILED_PRECONDITION if another process holds it,
  // INVALID_ARGUMENT if it is no directory that can be written to.
  static absl::StatusOr<DataDir> Lock(const std::filesystem::path& path);

  DataDir(DataDir&& other) noexcept;
  DataDir& operator=(DataDir&& other) noexcept;
  ~DataDir();

 private:
  explicit DataDir(int lock_file) : lock_file_(lock_file) {}

  int lock_file_;  // descriptor of PATH/LOCK; -1: moved from
};

}  // namespace mneme

#endif  // MNEME_SERVER_DATA_DIR_H_
