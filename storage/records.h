#ifndef MNEME_STORAGE_RECORDS_H_
#define MNEME_STORAGE_RECORDS_H_

// How sessions' records lie in the database: their keys, and values sealed with the session's key.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "storage/crypto.h"
#include "storage/database.h"
#include "storage/key_files.h"
#include "storage/session_coding.h"
#include "storage/session_state.h"
#include "storage/store_id.h"

namespace mneme {

// --- Keys: a letter, the session, for log records their number big-endian. ---

std::string MetadataKey(const StoreId& id);
std::string LogKey(const StoreId& id, uint64_t number);
// That a session is being deleted; not sealed.
std::string DeletionKey(const StoreId& id);
// Of all log records of a session, of all sessions' metadata, of all deletions.
std::string LogPrefix(const StoreId& id);
absl::string_view MetadataPrefix();
absl::string_view DeletionPrefix();
// The session that a key names; nothing if no key of these.
std::optional<StoreId> SessionOfKey(absl::string_view key);
// Of a log record's key.
uint64_t NumberOfKey(absl::string_view key);

// --- Values: a random nonce and the sealed record, bound to its key. ---

std::string SealRecord(const SecretKey& key, absl::string_view record_key,
                       absl::string_view plaintext);
// DATA_LOSS if it was not sealed with this key for this place.
absl::StatusOr<std::string> OpenRecord(const SecretKey& key, absl::string_view record_key,
                                       absl::string_view sealed);

// --- Reading and deleting whole sessions. ---

// What a session's log adds up to. NOT_FOUND without a key, DATA_LOSS if a record is damaged,
// missing or of another place. `last`, if given, is set to the last record's head.
absl::StatusOr<SessionState> ReadLog(const Database& database, KeyFiles& keys, const StoreId& id,
                                     LogRecordHead* last = nullptr);

// Removes the files of a session that are not in the database; OK if there are none.
using EraseFiles = std::function<absl::Status(const StoreId&)>;

// Of a session whose deletion is marked: destroys the key, then the files and records, then the
// mark. To be repeated until OK, also after a crash. One thread, the one that writes to `database`.
absl::Status FinishDeletion(Database& database, KeyFiles& keys, const EraseFiles& erase_files,
                            const StoreId& id);
absl::StatusOr<std::vector<StoreId>> MarkedDeletions(const Database& database);

}  // namespace mneme

#endif  // MNEME_STORAGE_RECORDS_H_
