#include "storage/spool.h"

#include <rocksdb/file_system.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "storage/sections.h"

namespace mneme {
namespace {

constexpr size_t kBlockBytes = kFrameBytes;
constexpr size_t kStoredBlockBytes = kBlockBytes + kTagBytes;

}  // namespace

Spool::Spool(std::shared_ptr<FileSystem> files, std::string path, uint64_t max_bytes)
    : files_(std::move(files)), path_(std::move(path)), max_bytes_(max_bytes) {
  XXH3_64bits_reset(hash_.get());
}

absl::StatusOr<std::unique_ptr<Spool>> Spool::Create(std::shared_ptr<FileSystem> files,
                                                     std::string path, uint64_t max_bytes) {
  std::unique_ptr<Spool> spool(new Spool(std::move(files), std::move(path), max_bytes));
  MNEME_RETURN_IF_ERROR(FromRocksDb(
      spool->files_->NewWritableFile(spool->path_, rocksdb::FileOptions(), &spool->file_, nullptr),
      absl::StrCat("creating ", spool->path_)));
  return spool;
}

Spool::~Spool() {
  if (file_ == nullptr) return;
  file_.reset();
  source_.reset();
  RemoveFile(*files_, path_).IgnoreError();
}

absl::Status Spool::Append(uint64_t offset, absl::string_view bytes) {
  MNEME_RETURN_IF_ERROR(failure_);
  if (offset != size_) {
    return absl::OutOfRangeError(
        absl::StrCat("the archive holds ", size_, " bytes; go on there, not at ", offset));
  }
  if (bytes.size() > max_bytes_ - size_) {
    failure_ = absl::InvalidArgumentError(absl::StrCat("the archive is larger than ", max_bytes_,
                                                       " bytes, which is this server's limit"));
    return failure_;
  }
  while (!bytes.empty()) {
    if (last_.size() == kBlockBytes) MNEME_RETURN_IF_ERROR(FlushBlock());
    const size_t count = std::min(bytes.size(), kBlockBytes - last_.size());
    last_.append(bytes.data(), count);
    XXH3_64bits_update(hash_.get(), bytes.data(), count);
    size_ += count;
    bytes.remove_prefix(count);
  }
  return absl::OkStatus();
}

absl::Status Spool::FlushBlock() {
  const Nonce nonce = FrameNonce(0, stored_blocks_);
  std::string sealed;
  Seal(key_, nonce, "", last_, &sealed);
  failure_ =
      FromRocksDb(file_->Append({sealed.data(), sealed.size()}, rocksdb::IOOptions(), nullptr),
                  absl::StrCat("writing ", path_));
  MNEME_RETURN_IF_ERROR(failure_);
  ++stored_blocks_;
  last_.clear();
  source_.reset();
  return absl::OkStatus();
}

absl::Status Spool::LoadBlock(uint64_t number) const {
  if (block_number_ == number) return absl::OkStatus();
  if (source_ == nullptr) {
    MNEME_ASSIGN_OR_RETURN(source_, FileSource::Open(*files_, path_));
  }
  std::string sealed(kStoredBlockBytes, '\0');
  MNEME_RETURN_IF_ERROR(source_->ReadAt(number * kStoredBlockBytes, sealed.size(), sealed.data()));
  block_.resize(kBlockBytes);
  block_number_ = UINT64_MAX;
  if (!Unseal(key_, FrameNonce(0, number), "", sealed, block_.data())) {
    return absl::DataLossError(absl::StrCat(path_, " is damaged"));
  }
  block_number_ = number;
  return absl::OkStatus();
}

absl::Status Spool::ReadAt(uint64_t offset, size_t count, char* destination) const {
  if (offset > size_ || count > size_ - offset) {
    return absl::DataLossError(absl::StrCat("the archive ends at byte ", size_));
  }
  while (count > 0) {
    const uint64_t number = offset / kBlockBytes;
    const auto within = static_cast<size_t>(offset % kBlockBytes);
    const bool in_memory = number == stored_blocks_;
    if (!in_memory) MNEME_RETURN_IF_ERROR(LoadBlock(number));
    const std::string& content = in_memory ? last_ : block_;
    const size_t part = std::min(count, content.size() - within);
    std::copy_n(content.data() + within, part, destination);
    destination += part;
    offset += part;
    count -= part;
  }
  return absl::OkStatus();
}

}  // namespace mneme
