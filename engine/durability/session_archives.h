#ifndef MNEME_ENGINE_DURABILITY_SESSION_ARCHIVES_H_
#define MNEME_ENGINE_DURABILITY_SESSION_ARCHIVES_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/durability/archive_file.h"
#include "engine/durability/io_thread.h"
#include "engine/durability/mailbox.h"
#include "engine/durability/partial_imports.h"
#include "engine/loading/config.h"
#include "engine/session/session.h"
#include "storage/archive.h"
#include "storage/session_store.h"

namespace mneme {

struct ArchiveOptions {
  // What the states in archives are sealed with, shared by servers that trust each other. Without
  // it archives hold none, and none is taken from them.
  std::optional<SecretKey> operator_key;
  uint64_t max_bytes = uint64_t{8} << 30;  // of one archive
};

// A session as an archive.
struct SessionArchive {
  std::string id;  // changes with the content
  uint64_t size_bytes = 0;
  std::shared_ptr<ArchiveFile> file;
};

// How the stream of an archive begins.
struct ImportStart {
  // Names the import, so that it can go on when the stream breaks off. Empty: it cannot.
  std::string import_id;
  // What has come before: how many bytes, and, if it is to be compared, their XXH3.
  uint64_t offset = 0;
  std::optional<uint64_t> hash;
};

// A session that an archive holds, validated.
struct ArchivedSession {
  SessionMetadata metadata;
  uint32_t epoch = 0;
  SessionLogs logs;
  std::vector<SessionEvent> events;  // that make its log
};

// Makes archives of sessions, and sessions of archives, on a thread of its own. Engine thread only;
// `done` is called there, through the mailbox, unless Stop comes first.
class SessionArchives {
 public:
  // Archives on their way at once, of all tenants and of one: each may take max_bytes of the disk.
  static constexpr int kMaxArchives = 8;
  static constexpr int kMaxArchivesOfTenant = kMaxArchives / 2;

  template <typename T>
  using Done = std::function<void(absl::StatusOr<T>)>;

  // What the session was when the archive was asked for: it may have gone on since.
  struct Subject {
    StoreId id;
    SessionMetadata metadata;
    uint32_t epoch = 0;
    int64_t position = 0;
  };

  // `store` and `config` must outlive it. `log_meaning`: see LogMeaning; `model_fingerprint`: see
  // CheckpointInfo. The clock must outlive it.
  SessionArchives(SessionStore& store, const ArchiveOptions& options, const ModelConfig& config,
                  uint64_t log_meaning, uint64_t model_fingerprint, const Clock& clock,
                  std::shared_ptr<Mailbox> mailbox);

  // The session's archive as its log is on the disk, with the newest checkpoint that fits.
  // RESOURCE_EXHAUSTED, UNAVAILABLE, DATA_LOSS.
  void Export(Subject subject, Done<SessionArchive> done);

  // One to be filled, of a session that is to be `key`: empty, or what has come of the import
  // `start` before. OUT_OF_RANGE if that is not `start.offset` bytes, with how many it is: 0 also
  // if it was dropped. INVALID_ARGUMENT if it is of another session, or its bytes are others.
  // RESOURCE_EXHAUSTED, UNAVAILABLE.
  void BeginImport(const SessionKey& key, const ImportStart& start,
                   Done<std::shared_ptr<ArchiveFile>> done);
  // The import of `file` has ended: unless it may be tried again, nothing is kept of it.
  void EndImport(const ArchiveFile& file, const absl::Status& status);
  // Drops imports that nobody has gone on with, and when it is to be called next.
  void DropOldImports() { imports_.DropOld(); }
  absl::Time NextExpiry() const { return imports_.NextExpiry(); }
  // What the archive holds. DATA_LOSS if any of it is damaged, FAILED_PRECONDITION if it is of
  // another model or format.
  void Read(std::shared_ptr<ArchiveFile> file, Done<ArchivedSession> done);
  // Makes a checkpoint of the stored session `id` of the archive's state, if it may be trusted and
  // fits; true if it was taken.
  void TakeState(std::shared_ptr<ArchiveFile> file, const StoreId& id, Done<bool> done);

  // `done`s that are still to come.
  int64_t under_way() const { return under_way_; }
  void Stop() { io_->Stop(); }

 private:
  void AddImport(const SessionKey& key, const ImportStart& start,
                 Done<std::shared_ptr<ArchiveFile>> done);
  void GoOnWith(const std::string& tenant, const std::shared_ptr<ArchiveFile>& file,
                const ImportStart& start, Done<std::shared_ptr<ArchiveFile>> done);

  // Runs `work` on the thread, and `done` with what it returns.
  template <typename Work, typename Callback>
  void Run(Work work, Callback done);

  // --- On the thread. ---
  absl::StatusOr<SessionArchive> MakeArchive(const Subject& subject);
  absl::StatusOr<std::shared_ptr<ArchiveFile>> NewFile(const std::string& tenant);
  // RESOURCE_EXHAUSTED unless the tenant may have one archive more on its way, beside `own` if that
  // is one that goes on.
  absl::Status CheckPlaces(const std::string& tenant, const ArchiveFile* own = nullptr);
  absl::StatusOr<ArchivedSession> ReadSession(Spool& spool) const;
  absl::StatusOr<bool> CopyState(Spool& spool, const StoreId& id);

  SessionStore& store_;
  const ArchiveOptions options_;
  const ModelConfig& config_;
  const uint64_t log_meaning_, model_fingerprint_;
  const std::shared_ptr<Mailbox> mailbox_;
  int64_t under_way_ = 0;
  PartialImports imports_;
  struct Place {
    std::string tenant;
    std::weak_ptr<ArchiveFile> file;
  };
  std::vector<Place> files_;  // the thread's
  const std::shared_ptr<IoThread> io_ = std::make_shared<IoThread>();
};

}  // namespace mneme

#endif  // MNEME_ENGINE_DURABILITY_SESSION_ARCHIVES_H_
