#ifndef MNEME_STORAGE_CHECKPOINT_H_
#define MNEME_STORAGE_CHECKPOINT_H_

// A session's computed state in a file: what would take long to compute again from its log.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "storage/crypto.h"
#include "storage/files.h"
#include "storage/section_reader.h"
#include "storage/section_writer.h"
#include "storage/session_state.h"
#include "storage/store_id.h"

namespace mneme {

// What a checkpoint belongs to.
struct CheckpointInfo {
  uint64_t model_fingerprint = 0;
  uint64_t controls_fingerprint = 0;  // ControlsFingerprint at `position`
  uint64_t log_hash = 0;              // LogHash of the first `position` tokens, `updates` updates
  int64_t position = 0;               // tokens computed
  int64_t updates = 0;                // those logged as applied; others wait, or are yet to come
  uint32_t epoch = 0;
  bool has_kv = false;
  std::string name;  // given by a client; empty: by the policy
  absl::Time create_time;

  friend bool operator==(const CheckpointInfo&, const CheckpointInfo&) = default;
};

// The info, less name and time, of a checkpoint of a session whose log is `state` now and that has
// computed `position` tokens of it and applied every update that is logged.
CheckpointInfo MakeCheckpointInfo(const SessionState& state, int64_t position,
                                  uint64_t model_fingerprint, bool has_kv);

// FAILED_PRECONDITION, saying what differs, unless a session with this log can go on from the
// checkpoint: also after a rollback to its position or behind, whatever its epoch.
absl::Status CheckFits(const CheckpointInfo& info, const SessionState& state,
                       uint64_t model_fingerprint);

std::string EncodeCheckpointInfo(const CheckpointInfo& info);
absl::StatusOr<CheckpointInfo> DecodeCheckpointInfo(absl::string_view bytes);
inline constexpr uint64_t kMaxCheckpointInfoBytes = 4096;

// Writes a checkpoint section by section; it takes its name at Commit. One thread.
class CheckpointWriter {
 public:
  // `sections` are written after the info. UNAVAILABLE, RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<CheckpointWriter>> Create(std::shared_ptr<FileSystem> files,
                                                                  const std::string& path,
                                                                  const StoreId& id,
                                                                  const SecretKey& key,
                                                                  const CheckpointInfo& info);

  SectionWriter& sections() { return sections_; }
  // After OK it survives a loss of power. Once.
  absl::Status Commit();

 private:
  CheckpointWriter(std::unique_ptr<AtomicFile> file, const StoreId& id, const SecretKey& key)
      : file_(std::move(file)), sections_(kCheckpointMagic, id, key, *file_) {}

  const std::unique_ptr<AtomicFile> file_;
  SectionWriter sections_;
};

// Reads one. One thread.
class CheckpointReader {
 public:
  // DATA_LOSS if it is damaged or another session's; FAILED_PRECONDITION if it is of another
  // format version or key. `source` must outlive the reader.
  static absl::StatusOr<CheckpointReader> Open(std::string name, const ByteSource& source,
                                               const StoreId& id, const SecretKey& key);

  const CheckpointInfo& info() const { return info_; }
  // Differs from that of any other checkpoint.
  const std::string& salt() const { return reader_.salt(); }
  // The next section behind the info; see SectionReader.
  absl::StatusOr<std::optional<SectionHead>> Next();
  absl::Status Read(size_t count, char* destination) { return reader_.Read(count, destination); }
  absl::StatusOr<std::string> ReadAll(uint64_t max_bytes) { return reader_.ReadAll(max_bytes); }
  uint64_t remaining() const { return reader_.remaining(); }
  // Reads all that is left, to the end. DATA_LOSS.
  absl::Status Verify();

 private:
  explicit CheckpointReader(SectionReader reader) : reader_(std::move(reader)) {}

  SectionReader reader_;
  CheckpointInfo info_;
};

}  // namespace mneme

#endif  // MNEME_STORAGE_CHECKPOINT_H_
