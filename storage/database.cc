#include "storage/database.h"

#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/file_system.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include <mutex>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace mneme {
namespace {

rocksdb::Slice AsSlice(absl::string_view bytes) { return {bytes.data(), bytes.size()}; }
absl::string_view AsView(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

constexpr size_t kWriteBufferBytes = 32 << 20;

// A file that is written to see whether the disk takes writes again.
constexpr absl::string_view kProbe = "PROBE";
constexpr size_t kProbeBytes = 4096;

rocksdb::Options MakeOptions(rocksdb::Env* env) {
  rocksdb::Options options;
  options.env = env;
  options.create_if_missing = true;
  options.compression = rocksdb::kNoCompression;  // what is sealed cannot be compressed
  options.paranoid_checks = true;
  // Of a log that ends in what a loss of power has left, all before that is taken.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  options.write_buffer_size = kWriteBufferBytes;
  options.max_total_wal_size = 128 << 20;
  options.max_open_files = 256;
  options.keep_log_file_num = 2;
  options.max_bgerror_resume_count = 0;  // Recover does it
  options.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
  rocksdb::BlockBasedTableOptions table;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

// The least key greater than every key that begins with `prefix`, which is not all 0xFF.
std::string After(absl::string_view prefix) {
  std::string after(prefix);
  while (after.back() == '\xFF') after.pop_back();
  after.back() = static_cast<char>(static_cast<unsigned char>(after.back()) + 1);
  return after;
}

}  // namespace

Database::Database(std::shared_ptr<FileSystem> files, std::string path)
    : files_(std::move(files)), path_(std::move(path)), env_(rocksdb::NewCompositeEnv(files_)) {}

Database::~Database() = default;

absl::StatusOr<std::unique_ptr<Database>> Database::Open(std::shared_ptr<FileSystem> files,
                                                         std::string path) {
  MNEME_RETURN_IF_ERROR(EnsureDirectory(*files, path));
  std::unique_ptr<Database> database(new Database(std::move(files), std::move(path)));
  MNEME_RETURN_IF_ERROR(database->OpenNow());
  return database;
}

absl::Status Database::OpenNow() {
  rocksdb::DB* db = nullptr;
  MNEME_RETURN_IF_ERROR(FromRocksDb(rocksdb::DB::Open(MakeOptions(env_.get()), path_, &db),
                                    absl::StrCat("opening the session log in ", path_)));
  db_.reset(db);
  return absl::OkStatus();
}

absl::Status Database::Recover() {
  MNEME_RETURN_IF_ERROR(Probe());
  const std::unique_lock<std::shared_mutex> lock(mutex_);
  db_.reset();
  return OpenNow();
}

absl::Status Database::Probe() const {
  uint64_t free_bytes = 0;
  const bool known = files_->GetFreeSpace(path_, rocksdb::IOOptions(), &free_bytes, nullptr).ok();
  if (known && free_bytes < 2 * kWriteBufferBytes) {
    return absl::ResourceExhaustedError(absl::StrCat("recovering the session log in ", path_,
                                                     ": only ", free_bytes,
                                                     " bytes are free; free space on the disk"));
  }
  const std::string path = absl::StrCat(path_, "/", kProbe);
  MNEME_ASSIGN_OR_RETURN(const std::unique_ptr<AtomicFile> file, AtomicFile::Create(files_, path));
  MNEME_RETURN_IF_ERROR(file->Append(std::string(kProbeBytes, '\0')));
  MNEME_RETURN_IF_ERROR(file->Commit());
  return RemoveFile(*files_, path);
}

absl::Status Database::Closed() const {
  return absl::UnavailableError(absl::StrCat("the session log in ", path_, " is being recovered"));
}

absl::Status Database::Write(rocksdb::WriteBatch* batch, bool sync) {
  if (db_ == nullptr) return Closed();
  rocksdb::WriteOptions options;
  options.sync = sync;
  return FromRocksDb(db_->Write(options, batch), "writing the session log");
}

absl::Status Database::Sync() {
  if (db_ == nullptr) return Closed();
  return FromRocksDb(db_->SyncWAL(), "syncing the session log");
}

absl::StatusOr<std::optional<std::string>> Database::Get(absl::string_view key) const {
  const std::shared_lock<std::shared_mutex> lock(mutex_);
  if (db_ == nullptr) return Closed();
  std::string value;
  const rocksdb::Status status = db_->Get(rocksdb::ReadOptions(), AsSlice(key), &value);
  if (status.IsNotFound()) return std::nullopt;
  MNEME_RETURN_IF_ERROR(FromRocksDb(status, "reading the session log"));
  return value;
}

absl::StatusOr<std::optional<std::pair<std::string, std::string>>> Database::Last(
    absl::string_view prefix) const {
  const std::shared_lock<std::shared_mutex> lock(mutex_);
  if (db_ == nullptr) return Closed();
  const std::unique_ptr<rocksdb::Iterator> entry(db_->NewIterator(rocksdb::ReadOptions()));
  entry->SeekForPrev(After(prefix));
  MNEME_RETURN_IF_ERROR(FromRocksDb(entry->status(), "reading the session log"));
  if (!entry->Valid() || !entry->key().starts_with(AsSlice(prefix))) return std::nullopt;
  return std::make_pair(entry->key().ToString(), entry->value().ToString());
}

absl::Status Database::Scan(absl::string_view prefix, const Visitor& visit) const {
  const std::shared_lock<std::shared_mutex> lock(mutex_);
  if (db_ == nullptr) return Closed();
  const std::string end = After(prefix);
  const rocksdb::Slice bound(end);
  rocksdb::ReadOptions options;
  options.iterate_upper_bound = &bound;
  const std::unique_ptr<rocksdb::Iterator> entry(db_->NewIterator(options));
  for (entry->Seek(AsSlice(prefix)); entry->Valid(); entry->Next()) {
    MNEME_RETURN_IF_ERROR(visit(AsView(entry->key()), AsView(entry->value())));
  }
  return FromRocksDb(entry->status(), "reading the session log");
}

}  // namespace mneme
