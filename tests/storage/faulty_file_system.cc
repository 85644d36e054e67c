#include "tests/storage/faulty_file_system.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

namespace mneme {
namespace {

namespace fs = std::filesystem;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

#define MNEME_RETURN_IF_REFUSED(expression) \
  if (IOStatus refused = (expression); !refused.ok()) return refused

std::string DirectoryOf(const std::string& path) { return fs::path(path).parent_path().string(); }

std::string Normal(const std::string& path) {
  std::string normal = fs::path(path).lexically_normal().string();
  if (normal.ends_with('/')) normal.pop_back();
  return normal;
}

class WritableFile : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  WritableFile(std::unique_ptr<rocksdb::FSWritableFile> file, FaultyFileSystem* files,
               std::string path)
      : FSWritableFileOwnerWrapper(std::move(file)), files_(files), path_(std::move(path)) {}

  IOStatus Append(const Slice& data, const IOOptions& options, IODebugContext* debug) override {
    IOStatus answer = files_->Ask(FileOp::kAppend, path_);
    if (answer.IsAborted()) return answer;  // no power
    const Slice written(data.data(), answer.ok() ? data.size() : data.size() / 2);
    MNEME_RETURN_IF_REFUSED(target()->Append(written, options, debug));
    files_->OnAppended(path_, written.size());
    return answer;
  }
  IOStatus Append(const Slice& data, const IOOptions& options,
                  const rocksdb::DataVerificationInfo& /*info*/, IODebugContext* debug) override {
    return Append(data, options, debug);
  }
  IOStatus Sync(const IOOptions& options, IODebugContext* debug) override {
    MNEME_RETURN_IF_REFUSED(files_->Ask(FileOp::kSync, path_));
    MNEME_RETURN_IF_REFUSED(target()->Flush(options, debug));
    files_->OnSynced(path_);
    return IOStatus::OK();
  }
  IOStatus Fsync(const IOOptions& options, IODebugContext* debug) override {
    return Sync(options, debug);
  }

 private:
  FaultyFileSystem* const files_;
  const std::string path_;
};

class RandomRWFile : public rocksdb::FSRandomRWFileOwnerWrapper {
 public:
  RandomRWFile(std::unique_ptr<rocksdb::FSRandomRWFile> file, FaultyFileSystem* files,
               std::string path)
      : FSRandomRWFileOwnerWrapper(std::move(file)), files_(files), path_(std::move(path)) {}

  IOStatus Write(uint64_t offset, const Slice& data, const IOOptions& options,
                 IODebugContext* debug) override {
    MNEME_RETURN_IF_REFUSED(files_->Ask(FileOp::kAppend, path_));
    files_->OnOverwrite(path_);
    return target()->Write(offset, data, options, debug);
  }
  IOStatus Fsync(const IOOptions& options, IODebugContext* debug) override {
    MNEME_RETURN_IF_REFUSED(files_->Ask(FileOp::kSync, path_));
    MNEME_RETURN_IF_REFUSED(target()->Flush(options, debug));
    files_->OnSynced(path_);
    return IOStatus::OK();
  }

 private:
  FaultyFileSystem* const files_;
  const std::string path_;
};

class RandomAccessFile : public rocksdb::FSRandomAccessFileOwnerWrapper {
 public:
  RandomAccessFile(std::unique_ptr<rocksdb::FSRandomAccessFile> file, FaultyFileSystem* files,
                   std::string path)
      : FSRandomAccessFileOwnerWrapper(std::move(file)), files_(files), path_(std::move(path)) {}

  IOStatus Read(uint64_t offset, size_t count, const IOOptions& options, Slice* result,
                char* scratch, IODebugContext* debug) const override {
    MNEME_RETURN_IF_REFUSED(files_->Ask(FileOp::kRead, path_));
    return FSRandomAccessFileWrapper::Read(offset, count, options, result, scratch, debug);
  }

 private:
  FaultyFileSystem* const files_;
  const std::string path_;
};

class Directory : public rocksdb::FSDirectoryWrapper {
 public:
  Directory(std::unique_ptr<rocksdb::FSDirectory> directory, FaultyFileSystem* files,
            std::string path)
      : FSDirectoryWrapper(std::move(directory)), files_(files), path_(std::move(path)) {}

  IOStatus Fsync(const IOOptions& /*options*/, IODebugContext* /*debug*/) override {
    MNEME_RETURN_IF_REFUSED(files_->Ask(FileOp::kSyncDirectory, path_));
    files_->OnDirectorySynced(path_);
    return IOStatus::OK();
  }
  IOStatus FsyncWithDirOptions(const IOOptions& options, IODebugContext* debug,
                               const rocksdb::DirFsyncOptions& /*reason*/) override {
    return Fsync(options, debug);
  }

 private:
  FaultyFileSystem* const files_;
  const std::string path_;
};

}  // namespace

FaultyFileSystem::FaultyFileSystem(std::string graveyard)
    : FileSystemWrapper(rocksdb::FileSystem::Default()), graveyard_(std::move(graveyard)) {
  fs::create_directories(graveyard_);
}

void FaultyFileSystem::SetHook(Hook hook) {
  const std::lock_guard<std::mutex> lock(mutex_);
  hook_ = std::move(hook);
}

void FaultyFileSystem::CutPower() {
  const std::lock_guard<std::mutex> lock(mutex_);
  power_ = false;
}

IOStatus FaultyFileSystem::Ask(FileOp op, const std::string& path) {
  std::unique_lock<std::mutex> lock(mutex_);
  const Hook hook = power_ ? hook_ : nullptr;
  lock.unlock();
  const IOStatus answer = hook ? hook(op, path) : IOStatus::OK();
  lock.lock();
  return power_ ? answer : IOStatus::Aborted("the power is cut");
}

void FaultyFileSystem::RestorePower() {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (auto change = changes_.rbegin(); change != changes_.rend(); ++change) {
    if (!change->from.empty()) {
      fs::rename(change->path, change->from);
      auto moved = written_.extract(change->path);
      if (!moved.empty()) {
        moved.key() = change->from;
        written_.insert(std::move(moved));
      }
    } else {
      fs::remove(change->path);
      written_.erase(change->path);
    }
    if (!change->buried.empty()) fs::rename(change->buried, change->path);
  }
  changes_.clear();
  for (const auto& [path, file] : written_) {
    if (!fs::exists(path)) continue;
    if (file.before) {
      std::ofstream(path, std::ios::binary) << *file.before;
    } else if (file.synced < fs::file_size(path)) {
      fs::resize_file(path, file.synced);
    }
  }
  written_.clear();
  power_ = true;
}

IOStatus FaultyFileSystem::NewWritableFile(const std::string& path,
                                           const rocksdb::FileOptions& options,
                                           std::unique_ptr<rocksdb::FSWritableFile>* file,
                                           IODebugContext* debug) {
  const std::string name = Normal(path);
  MNEME_RETURN_IF_REFUSED(Ask(FileOp::kCreate, name));
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    changes_.push_back({DirectoryOf(name), name, "", Bury(name)});
    written_[name] = Written();
  }
  std::unique_ptr<rocksdb::FSWritableFile> real;
  MNEME_RETURN_IF_REFUSED(target()->NewWritableFile(path, options, &real, debug));
  *file = std::make_unique<WritableFile>(std::move(real), this, name);
  return IOStatus::OK();
}

IOStatus FaultyFileSystem::NewRandomRWFile(const std::string& path,
                                           const rocksdb::FileOptions& options,
                                           std::unique_ptr<rocksdb::FSRandomRWFile>* file,
                                           IODebugContext* debug) {
  MNEME_RETURN_IF_REFUSED(Ask(FileOp::kCreate, Normal(path)));
  std::unique_ptr<rocksdb::FSRandomRWFile> real;
  MNEME_RETURN_IF_REFUSED(target()->NewRandomRWFile(path, options, &real, debug));
  *file = std::make_unique<RandomRWFile>(std::move(real), this, Normal(path));
  return IOStatus::OK();
}

IOStatus FaultyFileSystem::NewRandomAccessFile(const std::string& path,
                                               const rocksdb::FileOptions& options,
                                               std::unique_ptr<rocksdb::FSRandomAccessFile>* file,
                                               IODebugContext* debug) {
  MNEME_RETURN_IF_REFUSED(Ask(FileOp::kRead, Normal(path)));
  std::unique_ptr<rocksdb::FSRandomAccessFile> real;
  MNEME_RETURN_IF_REFUSED(target()->NewRandomAccessFile(path, options, &real, debug));
  *file = std::make_unique<RandomAccessFile>(std::move(real), this, Normal(path));
  return IOStatus::OK();
}

IOStatus FaultyFileSystem::NewDirectory(const std::string& path, const IOOptions& options,
                                        std::unique_ptr<rocksdb::FSDirectory>* directory,
                                        IODebugContext* debug) {
  std::unique_ptr<rocksdb::FSDirectory> real;
  MNEME_RETURN_IF_REFUSED(target()->NewDirectory(path, options, &real, debug));
  *directory = std::make_unique<Directory>(std::move(real), this, Normal(path));
  return IOStatus::OK();
}

IOStatus FaultyFileSystem::RenameFile(const std::string& from, const std::string& to,
                                      const IOOptions& options, IODebugContext* debug) {
  const std::string source = Normal(from), name = Normal(to);
  MNEME_RETURN_IF_REFUSED(Ask(FileOp::kRename, name));
  const std::lock_guard<std::mutex> lock(mutex_);
  changes_.push_back({DirectoryOf(name), name, source, Bury(name)});
  auto moved = written_.extract(source);
  if (!moved.empty()) {
    moved.key() = name;
    written_.erase(name);
    written_.insert(std::move(moved));
  }
  return target()->RenameFile(from, to, options, debug);
}

IOStatus FaultyFileSystem::DeleteFile(const std::string& path, const IOOptions& /*options*/,
                                      IODebugContext* /*debug*/) {
  const std::string name = Normal(path);
  MNEME_RETURN_IF_REFUSED(Ask(FileOp::kRemove, name));
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!fs::exists(name)) return IOStatus::PathNotFound(name);
  changes_.push_back({DirectoryOf(name), name, "", Bury(name)});
  return IOStatus::OK();
}

std::string FaultyFileSystem::Bury(const std::string& path) {
  if (!fs::exists(path)) return "";
  std::string grave = graveyard_ + "/" + std::to_string(++buried_);
  fs::rename(path, grave);
  return grave;
}

void FaultyFileSystem::OnAppended(const std::string& path, uint64_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  written_[path].size += bytes;
}

void FaultyFileSystem::OnOverwrite(const std::string& path) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::ifstream stream(path, std::ios::binary);
  written_[path].before.emplace(std::istreambuf_iterator<char>(stream),
                                std::istreambuf_iterator<char>());
}

void FaultyFileSystem::OnSynced(const std::string& path) {
  const std::lock_guard<std::mutex> lock(mutex_);
  Written& file = written_[path];
  file.synced = std::max(file.synced, file.size);
  file.before.reset();
  if (file.size == 0) written_.erase(path);  // was there before
}

void FaultyFileSystem::OnDirectorySynced(const std::string& path) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::erase_if(changes_, [&](const Change& change) {
    if (change.directory != path) return false;
    if (!change.buried.empty()) fs::remove(change.buried);
    return true;
  });
}

}  // namespace mneme
