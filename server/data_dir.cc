#include "server/data_dir.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace mneme {
namespace {

absl::Status Unusable(const std::filesystem::path& path, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat("cannot use data directory ", path.string(), ": ",
                                                 why, "; give --data_dir a writable directory"));
}

}  // namespace

absl::StatusOr<DataDir> DataDir::Lock(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return Unusable(path, error.message());
  const std::string lock_path = path / "LOCK";
  const int file = open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) return Unusable(path, std::strerror(errno));
  DataDir dir(file);
  if (flock(file, LOCK_EX | LOCK_NB) == 0) return dir;
  if (errno != EWOULDBLOCK) return Unusable(path, std::strerror(errno));
  return absl::FailedPreconditionError(
      absl::StrCat("data directory ", path.string(), " is in use by another server"));
}

DataDir::DataDir(DataDir&& other) noexcept : lock_file_(std::exchange(other.lock_file_, -1)) {}

DataDir& DataDir::operator=(DataDir&& other) noexcept {
  std::swap(lock_file_, other.lock_file_);
  return *this;
}

DataDir::~DataDir() {
  if (lock_file_ >= 0) close(lock_file_);
}

}  // namespace mneme
