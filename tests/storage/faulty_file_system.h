#ifndef MNEME_TESTS_STORAGE_FAULTY_FILE_SYSTEM_H_
#define MNEME_TESTS_STORAGE_FAULTY_FILE_SYSTEM_H_

// Real files that fail when told to, and that forget at a power cut all that was not synced.

#include <rocksdb/file_system.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace mneme {

enum class FileOp { kCreate, kAppend, kSync, kRead, kRename, kRemove, kSyncDirectory };

// Any thread.
class FaultyFileSystem : public rocksdb::FileSystemWrapper {
 public:
  // Asked before each operation; anything but OK is its result. An append that fails has written
  // half. May block: a slow disk.
  using Hook = std::function<rocksdb::IOStatus(FileOp, const std::string& path)>;

  // `graveyard` is a directory outside of what is tested, on the same disk.
  explicit FaultyFileSystem(std::string graveyard);
  const char* Name() const override { return "FaultyFileSystem"; }

  void SetHook(Hook hook);
  // From now on every operation fails and changes nothing.
  void CutPower();
  // The disk as a power cut may have left it: without bytes, names, renames and removals that were
  // not synced. Operations work again. Everything opened before must be closed.
  void RestorePower();

  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus NewRandomRWFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSRandomRWFile>* file,
                                    rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus NewRandomAccessFile(const std::string& path,
                                        const rocksdb::FileOptions& options,
                                        std::unique_ptr<rocksdb::FSRandomAccessFile>* file,
                                        rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus NewDirectory(const std::string& path, const rocksdb::IOOptions& options,
                                 std::unique_ptr<rocksdb::FSDirectory>* directory,
                                 rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus RenameFile(const std::string& from, const std::string& to,
                               const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus DeleteFile(const std::string& path, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override;

  // --- For its files. ---
  rocksdb::IOStatus Ask(FileOp op, const std::string& path);
  void OnAppended(const std::string& path, uint64_t bytes);
  void OnOverwrite(const std::string& path);
  void OnSynced(const std::string& path);
  void OnDirectorySynced(const std::string& path);

 private:
  struct Written {
    uint64_t size = 0;
    uint64_t synced = 0;
    std::optional<std::string> before;  // content that an overwrite not yet synced has replaced
  };
  // A change of names that its directory's sync has not made durable.
  struct Change {
    std::string directory, path;
    std::string from;    // a rename's source; empty: created or removed
    std::string buried;  // where the file is that had this name before; empty: none had
  };

  std::string Bury(const std::string& path);  // empty if there is no such file

  const std::string graveyard_;
  std::mutex mutex_;
  Hook hook_;
  bool power_ = true;
  int64_t buried_ = 0;
  std::map<std::string, Written> written_;
  std::vector<Change> changes_;
};

}  // namespace mneme

#endif  // MNEME_TESTS_STORAGE_FAULTY_FILE_SYSTEM_H_
