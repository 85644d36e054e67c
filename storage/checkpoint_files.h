#ifndef MNEME_STORAGE_CHECKPOINT_FILES_H_
#define MNEME_STORAGE_CHECKPOINT_FILES_H_

// Which checkpoints a session has, which of them to restore from, and which to keep.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "storage/checkpoint.h"
#include "storage/session_store.h"

namespace mneme {

// What a checkpoint's file name says of it. Only what the file holds is to be trusted.
struct CheckpointName {
  int64_t position = 0;
  uint32_t epoch = 0;
  bool has_kv = false;
  uint64_t name_hash = 0;  // of the name that a client gave; 0: none

  static CheckpointName Of(const CheckpointInfo& info);
  // `name_hash` of a client's name.
  static uint64_t HashOf(const std::string& name);
  // Nothing if it is no name that ToFileName gives.
  static std::optional<CheckpointName> FromFileName(const std::string& file_name);
  std::string ToFileName() const;

  friend bool operator==(const CheckpointName&, const CheckpointName&) = default;
  friend bool operator<(const CheckpointName& a, const CheckpointName& b) {
    return std::tie(a.position, a.epoch, a.has_kv, a.name_hash) <
           std::tie(b.position, b.epoch, b.has_kv, b.name_hash);
  }
};

struct CheckpointPolicy {
  int64_t every_tokens = 16384;              // 0: not by tokens
  absl::Duration every = absl::Minutes(10);  // while the session changes; infinite: not by time
  int keep = 2;                              // the newest; at least 1
};

// Whether a session at `position` is due for one, the last having been taken at `last_position`,
// `elapsed` ago.
bool CheckpointDue(const CheckpointPolicy& policy, int64_t position, int64_t last_position,
                   absl::Duration elapsed);
// Which of `checkpoints`, newest first, to drop: all but the newest, the newest with KV, and those
// that clients have named.
std::vector<CheckpointName> CheckpointsToDrop(const std::vector<CheckpointName>& checkpoints,
                                              const CheckpointPolicy& policy);

// What to restore and from what.
struct RestoreRequest {
  StoreId id;
  const SessionState* state = nullptr;  // the session's log
  uint64_t model_fingerprint = 0;
  int64_t max_position = INT64_MAX;  // for a rollback or a fork
  bool needs_kv = true;              // else also from those without KV
};

struct Restored {
  std::optional<CheckpointInfo> from;  // nothing: by no checkpoint, replay the whole log
  std::vector<absl::Status> refused;   // newer ones, and why
};

// What a session's checkpoints take of the disk.
struct CheckpointBytes {
  int64_t all = 0;
  int64_t named = 0;  // those that clients have named

  friend bool operator==(const CheckpointBytes&, const CheckpointBytes&) = default;
};

// The checkpoints of the sessions of a store. Any thread; what writes or removes those of a
// session, one at a time.
class CheckpointFiles {
 public:
  // `store` must outlive it.
  explicit CheckpointFiles(SessionStore& store) : store_(store) {}

  // A new one; what a crash has left of earlier ones is removed. NOT_FOUND if the session has no
  // key (any more).
  absl::StatusOr<std::unique_ptr<CheckpointWriter>> Create(const StoreId& id,
                                                           const CheckpointInfo& info);
  // Newest first: by position, then epoch.
  absl::StatusOr<std::vector<CheckpointName>> List(const StoreId& id) const;
  absl::Status Remove(const StoreId& id, const std::vector<CheckpointName>& names);
  // All but those that clients have named.
  absl::Status RemoveUnnamed(const StoreId& id);
  // Of those that clients have named, all but these.
  absl::Status RemoveNamedBut(const StoreId& id, const std::vector<std::string>& names);
  // Of its files; those that cannot be measured do not count.
  CheckpointBytes Bytes(const StoreId& id) const;

  // Calls `restore` with the newest checkpoint that is whole and fits, then with older ones as long
  // as it returns DATA_LOSS, FAILED_PRECONDITION, UNAVAILABLE (a disk that fails to read) or
  // NOT_FOUND, whatever it has taken from the last; one that is removed meanwhile is passed over
  // too. `restore` must read to the end, for only then the checkpoint is known to be whole. Other
  // errors are returned; NOT_FOUND if the session has no key (any more).
  using Restore = std::function<absl::Status(CheckpointReader&)>;
  absl::StatusOr<Restored> RestoreNewest(const RestoreRequest& request,
                                         const Restore& restore) const;

 private:
  std::string PathOf(const StoreId& id, const CheckpointName& name) const;
  absl::Status RestoreFrom(const RestoreRequest& request, const SecretKey& key,
                           const CheckpointName& name, const Restore& restore,
                           CheckpointInfo* info) const;

  SessionStore& store_;
};

}  // namespace mneme

#endif  // MNEME_STORAGE_CHECKPOINT_FILES_H_
