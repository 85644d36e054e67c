#include "storage/log_writer.h"

#include <rocksdb/write_batch.h>

#include <iterator>
#include <utility>

#include "base/status_macros.h"
#include "storage/records.h"
#include "storage/session_coding.h"

namespace mneme {

LogWriter::LogWriter(Database& database, KeyFiles& keys, EraseFiles erase_files,
                     const absl::flat_hash_map<StoreId, uint64_t>& next_numbers,
                     const LogWriterOptions& options)
    : database_(database), keys_(keys), erase_files_(std::move(erase_files)), options_(options) {
  for (const auto& [id, number] : next_numbers) tails_[id].next_number = number;
  thread_ = std::thread([this] { Run(); });
}

LogWriter::~LogWriter() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void LogWriter::Commit(LogBatch batch, Done done) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    queue_.push_back({std::move(batch), std::move(done)});
  }
  changed_.notify_all();
}

LogWriterHealth LogWriter::health() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return {.status = status_,
          .pending_batches = static_cast<int64_t>(queue_.size()) + in_work_,
          .logs_to_compact = static_cast<int64_t>(grown_.size())};
}

// --- The writer's thread. ---

void LogWriter::Run() {
  std::vector<Pending> group;
  while (CompactWhileIdle(), TakeGroup(&group)) {
    const absl::Status status = WriteUntilDone(Prepare(group));
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      in_work_ = 0;
    }
    for (const Pending& pending : group) {
      if (pending.done) pending.done(status);
    }
    group.clear();
  }
  if (unsynced_since_) SyncNow().IgnoreError();
}

bool LogWriter::TakeGroup(std::vector<Pending>* group) {
  const auto something = [this] { return ending_ || !queue_.empty(); };
  std::unique_lock<std::mutex> lock(mutex_);
  while (unsynced_since_ && !changed_.wait_for(lock, UntilSync(), something)) {
    lock.unlock();
    Note(SyncNow());
    lock.lock();
  }
  changed_.wait(lock, something);
  if (queue_.empty()) return false;
  group->assign(std::move_iterator(queue_.begin()), std::move_iterator(queue_.end()));
  queue_.clear();
  in_work_ = static_cast<int64_t>(group->size());
  return true;
}

LogWriter::Work LogWriter::Prepare(const std::vector<Pending>& group) {
  // Operations add what they need; those that log to a session that is not there need nothing.
  struct Preparer {
    LogWriter& writer;
    Work work;

    void operator()(const CreateSession& create) {
      work.creations.push_back(create.id);
      writer.tails_[create.id] = Tail();
      (*this)(SetMetadata{create.id, create.metadata});
    }
    void operator()(const SetMetadata& set) {
      if (!writer.tails_.contains(set.id)) return;
      work.records.push_back({set.id, MetadataKey(set.id), EncodeMetadata(set.metadata)});
    }
    void operator()(const LogEvents& log) {
      const auto found = writer.tails_.find(log.id);
      if (found == writer.tails_.end()) return;
      Tail& tail = found->second;
      for (std::string& record :
           EncodeLogRecords({.epoch = log.epoch, .position = log.position, .time = log.time},
                            log.events, writer.options_.max_record_bytes)) {
        work.records.push_back({log.id, LogKey(log.id, tail.next_number++), std::move(record)});
        if (++tail.records == writer.options_.compact_after_records) writer.NoteGrown(log.id);
      }
    }
    void operator()(const DeleteSession& deletion) {
      writer.tails_.erase(deletion.id);
      std::erase(work.creations, deletion.id);
      std::erase_if(work.records, [&](const auto& record) { return record.id == deletion.id; });
      work.deletions.push_back(deletion.id);
    }
  };
  Preparer preparer{*this, {}};
  for (const Pending& pending : group) {
    for (const LogOperation& operation : pending.batch) std::visit(preparer, operation);
  }
  return std::move(preparer.work);
}

void LogWriter::NoteGrown(const StoreId& id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  grown_.push_back(id);
}

void LogWriter::CompactWhileIdle() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!grown_.empty() && queue_.empty() && !ending_) {
    const StoreId id = grown_.front();
    lock.unlock();
    const absl::StatusOr<Work> work = PrepareCompaction(id);
    // A log that cannot be read is reported when the session is.
    if (work.ok()) WriteUntilDone(*work).IgnoreError();
    lock.lock();
    grown_.pop_front();
  }
}

absl::StatusOr<LogWriter::Work> LogWriter::PrepareCompaction(const StoreId& id) {
  const auto found = tails_.find(id);
  if (found == tails_.end()) return absl::NotFoundError("it was deleted meanwhile");
  LogRecordHead head;
  MNEME_ASSIGN_OR_RETURN(const SessionState state, ReadLog(database_, keys_, id, &head));
  head.whole = true;
  Tail& tail = found->second;
  tail.records = 0;
  Work work;
  work.compacted = {id, tail.next_number};
  for (std::string& record : EncodeLogRecords(head, state.ToEvents(), options_.max_record_bytes)) {
    work.records.push_back({id, LogKey(id, tail.next_number++), std::move(record)});
  }
  return work;
}

absl::Status LogWriter::WriteUntilDone(const Work& work) {
  while (gave_up_.ok()) {
    absl::Status status = Write(work);
    Note(status);
    if (status.ok()) return status;
    std::unique_lock<std::mutex> lock(mutex_);
    if (changed_.wait_for(lock, options_.retry_delay, [this] { return ending_; })) {
      gave_up_ = absl::UnavailableError("the session log was closed before it could be written: " +
                                        std::string(status.message()));
    }
  }
  return gave_up_;
}

absl::Status LogWriter::Write(const Work& work) {
  MNEME_RETURN_IF_ERROR(RecoverIfNeeded());
  for (const StoreId& id : work.creations) MNEME_RETURN_IF_ERROR(keys_.Create(id));
  rocksdb::WriteBatch batch;
  for (const Work::Record& record : work.records) {
    MNEME_ASSIGN_OR_RETURN(const SecretKey key, keys_.Get(record.id));
    const rocksdb::Status put =
        batch.Put(record.key, SealRecord(key, record.key, record.plaintext));
    if (!put.ok()) return absl::InternalError("a record of the session log: " + put.ToString());
  }
  if (work.compacted) {
    const auto& [id, number] = *work.compacted;
    batch.DeleteRange(LogKey(id, 0), LogKey(id, number));
  }
  for (const StoreId& id : work.deletions) batch.Put(DeletionKey(id), "");
  if (batch.Count() == 0) return absl::OkStatus();
  const bool sync = options_.durability == Durability::kSync || !work.deletions.empty() ||
                    (unsynced_since_ && UntilSync() <= std::chrono::nanoseconds::zero());
  MNEME_RETURN_IF_ERROR(FromDatabase(database_.Write(&batch, sync)));
  if (sync) {
    unsynced_since_.reset();
  } else if (!unsynced_since_) {
    unsynced_since_ = options_.now();
  }
  for (const StoreId& id : work.deletions) {
    MNEME_RETURN_IF_ERROR(FromDatabase(FinishDeletion(database_, keys_, erase_files_, id)));
  }
  return absl::OkStatus();
}

absl::Status LogWriter::SyncNow() {
  unsynced_since_ = options_.now();  // if it fails
  MNEME_RETURN_IF_ERROR(RecoverIfNeeded());
  MNEME_RETURN_IF_ERROR(FromDatabase(database_.Sync()));
  unsynced_since_.reset();
  return absl::OkStatus();
}

std::chrono::nanoseconds LogWriter::UntilSync() const {
  return *unsynced_since_ + options_.sync_interval - options_.now();
}

absl::Status LogWriter::FromDatabase(absl::Status status) {
  if (!status.ok()) must_recover_ = true;
  return status;
}

absl::Status LogWriter::RecoverIfNeeded() {
  if (!must_recover_) return absl::OkStatus();
  MNEME_RETURN_IF_ERROR(database_.Recover());
  must_recover_ = false;
  return absl::OkStatus();
}

void LogWriter::Note(const absl::Status& status) {
  const std::lock_guard<std::mutex> lock(mutex_);
  status_ = status;
}

}  // namespace mneme
