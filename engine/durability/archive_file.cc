#include "engine/durability/archive_file.h"

#include <algorithm>
#include <utility>

#include "engine/durability/storage_error.h"

namespace mneme {
namespace {

absl::StatusOr<std::string> ReadPart(const Spool& spool, uint64_t offset, uint64_t max_bytes) {
  const uint64_t begin = std::min(offset, spool.size());
  std::string part(static_cast<size_t>(std::min(max_bytes, spool.size() - begin)), '\0');
  const absl::Status status = spool.ReadAt(begin, part.size(), part.data());
  if (!status.ok()) return status;
  return part;
}

}  // namespace

// Files are removed where that may take long.
ArchiveFile::~ArchiveFile() {
  io_->Run([spool = std::move(spool_)]() mutable { spool.reset(); });
}

void ArchiveFile::Append(uint64_t offset, std::string bytes,
                         std::function<void(absl::Status)> done) {
  io_->Run(
      [spool = spool_, filled = filled_, offset, bytes = std::move(bytes), done = std::move(done)] {
        const absl::Status status = spool->Append(offset, bytes);
        filled->size_bytes = spool->size();
        filled->failed = !spool->failure().ok();
        done(ForClient(status));
      });
}

void ArchiveFile::Read(uint64_t offset, uint64_t max_bytes,
                       std::function<void(absl::StatusOr<std::string>)> done) {
  io_->Run([spool = spool_, offset, max_bytes, done = std::move(done)] {
    absl::StatusOr<std::string> part = ReadPart(*spool, offset, max_bytes);
    part.ok() ? done(std::move(part)) : done(ForClient(part.status()));
  });
}

}  // namespace mneme
