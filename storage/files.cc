#include "storage/files.h"

#include <rocksdb/file_system.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace mneme {
namespace {

constexpr absl::string_view kUnfinished = ".tmp";

std::string ParentOf(const std::string& path) {
  return std::filesystem::path(path).parent_path().string();
}

rocksdb::Slice AsSlice(absl::string_view bytes) { return {bytes.data(), bytes.size()}; }

}  // namespace

std::shared_ptr<FileSystem> RealFileSystem() { return rocksdb::FileSystem::Default(); }

absl::Status FromRocksDb(const rocksdb::Status& status, const std::string& what) {
  if (status.ok()) return absl::OkStatus();
  const std::string message = absl::StrCat(what, ": ", status.ToString());
  if (status.IsNoSpace()) {
    return absl::ResourceExhaustedError(absl::StrCat(message, "; free space on the disk"));
  }
  if (status.IsNotFound() || status.IsPathNotFound()) return absl::NotFoundError(message);
  if (status.IsCorruption()) return absl::DataLossError(message);
  return absl::UnavailableError(message);
}

AtomicFile::AtomicFile(std::shared_ptr<FileSystem> files, std::string path)
    : files_(std::move(files)), path_(std::move(path)) {}

absl::StatusOr<std::unique_ptr<AtomicFile>> AtomicFile::Create(std::shared_ptr<FileSystem> files,
                                                               const std::string& path) {
  std::unique_ptr<AtomicFile> file(new AtomicFile(std::move(files), path));
  MNEME_RETURN_IF_ERROR(
      FromRocksDb(file->files_->NewWritableFile(absl::StrCat(path, kUnfinished),
                                                rocksdb::FileOptions(), &file->file_, nullptr),
                  absl::StrCat("creating ", path)));
  return file;
}

absl::Status AtomicFile::RemoveUnfinished(FileSystem& files, const std::string& directory) {
  MNEME_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(files, directory));
  for (const std::string& name : names) {
    if (!absl::EndsWith(name, kUnfinished)) continue;
    MNEME_RETURN_IF_ERROR(EraseFile(files, absl::StrCat(directory, "/", name)));
  }
  return absl::OkStatus();
}

AtomicFile::~AtomicFile() {
  if (file_ == nullptr) return;
  file_.reset();
  RemoveFile(*files_, absl::StrCat(path_, kUnfinished)).IgnoreError();
}

absl::Status AtomicFile::Append(absl::string_view bytes) {
  return FromRocksDb(file_->Append(AsSlice(bytes), rocksdb::IOOptions(), nullptr),
                     absl::StrCat("writing ", path_));
}

absl::Status AtomicFile::Commit() {
  const rocksdb::IOOptions options;
  MNEME_RETURN_IF_ERROR(
      FromRocksDb(file_->Fsync(options, nullptr), absl::StrCat("syncing ", path_)));
  MNEME_RETURN_IF_ERROR(
      FromRocksDb(file_->Close(options, nullptr), absl::StrCat("closing ", path_)));
  MNEME_RETURN_IF_ERROR(
      FromRocksDb(files_->RenameFile(absl::StrCat(path_, kUnfinished), path_, options, nullptr),
                  absl::StrCat("renaming ", path_)));
  file_.reset();
  return SyncDirectory(*files_, ParentOf(path_));
}

FileSource::FileSource(std::string path, uint64_t size,
                       std::unique_ptr<rocksdb::FSRandomAccessFile> file)
    : path_(std::move(path)), size_(size), file_(std::move(file)) {}

FileSource::~FileSource() = default;

absl::StatusOr<std::unique_ptr<FileSource>> FileSource::Open(FileSystem& files,
                                                             const std::string& path) {
  std::unique_ptr<rocksdb::FSRandomAccessFile> file;
  MNEME_RETURN_IF_ERROR(
      FromRocksDb(files.NewRandomAccessFile(path, rocksdb::FileOptions(), &file, nullptr),
                  absl::StrCat("opening ", path)));
  uint64_t size = 0;
  MNEME_RETURN_IF_ERROR(FromRocksDb(files.GetFileSize(path, rocksdb::IOOptions(), &size, nullptr),
                                    absl::StrCat("opening ", path)));
  return std::unique_ptr<FileSource>(new FileSource(path, size, std::move(file)));
}

absl::Status FileSource::ReadAt(uint64_t offset, size_t count, char* destination) const {
  rocksdb::Slice read;
  MNEME_RETURN_IF_ERROR(
      FromRocksDb(file_->Read(offset, count, rocksdb::IOOptions(), &read, destination, nullptr),
                  absl::StrCat("reading ", path_)));
  if (read.size() < count) {
    return absl::DataLossError(absl::StrCat(path_, " ends at byte ", offset + read.size(),
                                            " where ", offset + count, " were expected"));
  }
  if (read.data() != destination) std::memcpy(destination, read.data(), count);
  return absl::OkStatus();
}

absl::Status EnsureDirectory(FileSystem& files, const std::string& path) {
  const rocksdb::IOOptions options;
  if (files.FileExists(path, options, nullptr).ok()) return absl::OkStatus();
  MNEME_RETURN_IF_ERROR(FromRocksDb(files.CreateDirIfMissing(path, options, nullptr),
                                    absl::StrCat("making directory ", path)));
  return SyncDirectory(files, ParentOf(path));
}

absl::Status SyncDirectory(FileSystem& files, const std::string& path) {
  const rocksdb::IOOptions options;
  std::unique_ptr<rocksdb::FSDirectory> directory;
  MNEME_RETURN_IF_ERROR(FromRocksDb(files.NewDirectory(path, options, &directory, nullptr),
                                    absl::StrCat("opening directory ", path)));
  return FromRocksDb(directory->Fsync(options, nullptr), absl::StrCat("syncing directory ", path));
}

absl::StatusOr<std::vector<std::string>> ListDirectory(FileSystem& files, const std::string& path) {
  std::vector<std::string> names;
  const absl::Status status =
      FromRocksDb(files.GetChildren(path, rocksdb::IOOptions(), &names, nullptr),
                  absl::StrCat("listing ", path));
  if (absl::IsNotFound(status)) return std::vector<std::string>();
  MNEME_RETURN_IF_ERROR(status);
  std::erase_if(names, [](const std::string& name) { return name == "." || name == ".."; });
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<int64_t> FileBytes(FileSystem& files, const std::string& path) {
  uint64_t bytes = 0;
  MNEME_RETURN_IF_ERROR(FromRocksDb(files.GetFileSize(path, rocksdb::IOOptions(), &bytes, nullptr),
                                    absl::StrCat("measuring ", path)));
  return static_cast<int64_t>(bytes);
}

absl::Status RemoveFile(FileSystem& files, const std::string& path) {
  const rocksdb::IOStatus status = files.DeleteFile(path, rocksdb::IOOptions(), nullptr);
  if (status.IsPathNotFound() || status.IsNotFound()) return absl::OkStatus();
  return FromRocksDb(status, absl::StrCat("removing ", path));
}

absl::Status RemoveDirectory(FileSystem& files, const std::string& path) {
  const rocksdb::IOOptions options;
  if (files.FileExists(path, options, nullptr).IsNotFound()) return absl::OkStatus();
  MNEME_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(files, path));
  for (const std::string& name : names) {
    MNEME_RETURN_IF_ERROR(RemoveFile(files, absl::StrCat(path, "/", name)));
  }
  return FromRocksDb(files.DeleteDir(path, options, nullptr),
                     absl::StrCat("removing directory ", path));
}

absl::Status EraseFile(FileSystem& files, const std::string& path) {
  const rocksdb::IOOptions options;
  uint64_t size = 0;
  const rocksdb::IOStatus found = files.GetFileSize(path, options, &size, nullptr);
  if (!found.ok() && !files.FileExists(path, options, nullptr).IsNotFound()) {
    return FromRocksDb(found, absl::StrCat("erasing ", path));
  }
  if (found.ok()) {
    const std::string what = absl::StrCat("erasing ", path);
    std::unique_ptr<rocksdb::FSRandomRWFile> file;
    MNEME_RETURN_IF_ERROR(
        FromRocksDb(files.NewRandomRWFile(path, rocksdb::FileOptions(), &file, nullptr), what));
    const std::string zeros(size, '\0');
    MNEME_RETURN_IF_ERROR(FromRocksDb(file->Write(0, AsSlice(zeros), options, nullptr), what));
    MNEME_RETURN_IF_ERROR(FromRocksDb(file->Fsync(options, nullptr), what));
    MNEME_RETURN_IF_ERROR(FromRocksDb(file->Close(options, nullptr), what));
    MNEME_RETURN_IF_ERROR(RemoveFile(files, path));
  }
  return SyncDirectory(files, ParentOf(path));
}

}  // namespace mneme
