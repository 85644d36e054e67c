#ifndef MNEME_STORAGE_ARCHIVE_H_
#define MNEME_STORAGE_ARCHIVE_H_

// A session as one stream of bytes, to be taken to another server: metadata and log, which anybody
// can read, then the state of a checkpoint, sealed with a key that servers share which trust each
// other. State that was not sealed by such a server is never taken: it could be made to do
// anything.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/checkpoint.h"
#include "storage/crypto.h"
#include "storage/files.h"
#include "storage/section_reader.h"
#include "storage/session_state.h"
#include "storage/store_id.h"

namespace mneme {

// Makes an archive. The same session, checkpoint and key give the same bytes, so a stream that
// broke off goes on from an offset. One thread.
class ArchiveExport {
 public:
  // `checkpoint` (just opened) is left out if it is null or there is no `key`; it must outlive
  // this.
  ArchiveExport(const SessionMetadata& metadata, const SessionState& state,
                CheckpointReader* checkpoint, const std::optional<SecretKey>& key);

  // Changes with the content. Who resumes compares it with that of the stream's beginning.
  const StoreId& id() const { return id_; }
  // The bytes from `offset` on. Once. The sink's errors, DATA_LOSS of the checkpoint, OUT_OF_RANGE
  // if the archive is shorter, INVALID_ARGUMENT if the log is longer than a reader takes.
  absl::Status WriteTo(ByteSink& sink, uint64_t offset);

 private:
  absl::Status CopyState(SectionWriter* writer) const;

  const std::string metadata_, log_;  // encoded
  const std::optional<SecretKey> key_;
  CheckpointReader* const checkpoint_;  // null: none
  StoreId id_;
  std::string salt_;
};

// Reads one; its bytes may be anybody's. One thread.
class ArchiveReader {
 public:
  static constexpr uint64_t kMaxMetadataBytes = uint64_t{1} << 20;
  // About a million tokens, all with 20 log-probabilities.
  static constexpr uint64_t kMaxLogBytes = uint64_t{1} << 28;

  // Reads metadata and log. DATA_LOSS, FAILED_PRECONDITION (format version). `source` must outlive
  // the reader.
  static absl::StatusOr<ArchiveReader> Open(std::string name, const ByteSource& source);

  const SessionMetadata& metadata() const { return metadata_; }
  const SessionState& state() const { return state_; }

  // Copies the sealed state into a checkpoint that `create` opens, which is the caller's to commit
  // after OK. NOT_FOUND if the archive has none; FAILED_PRECONDITION if it is sealed with another
  // key, of another model or of another log; DATA_LOSS. Then the log alone can be taken. Once.
  using CreateCheckpoint =
      std::function<absl::StatusOr<std::unique_ptr<CheckpointWriter>>(const CheckpointInfo&)>;
  absl::StatusOr<std::unique_ptr<CheckpointWriter>> CopyState(const SecretKey& key,
                                                              uint64_t model_fingerprint,
                                                              const CreateCheckpoint& create);

 private:
  explicit ArchiveReader(SectionReader reader) : reader_(std::move(reader)) {}

  // The content of the next section, which must be of `kind`.
  absl::StatusOr<std::string> Expect(SectionKind kind, uint64_t max_bytes);
  // The next section, which must be sealed; nothing at the end.
  absl::StatusOr<std::optional<SectionHead>> NextSealed();

  SectionReader reader_;
  SessionMetadata metadata_;
  SessionState state_;
};

}  // namespace mneme

#endif  // MNEME_STORAGE_ARCHIVE_H_
