#include "storage/session_store.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "storage/records.h"
#include "storage/session_coding.h"

namespace mneme {
namespace {

constexpr const char* kSpool = "/spool";

}  // namespace

absl::StatusOr<SessionStore::Opened> SessionStore::Open(StoreOptions options) {
  std::unique_ptr<SessionStore> store(new SessionStore(std::move(options)));
  MNEME_RETURN_IF_ERROR(store->OpenParts());
  absl::flat_hash_map<StoreId, uint64_t> next_numbers;
  MNEME_ASSIGN_OR_RETURN(SessionListing listing, store->List(&next_numbers));
  store->writer_ = std::make_unique<LogWriter>(
      *store->database_, *store->keys_,
      [raw = store.get()](const StoreId& id) { return raw->EraseCheckpoints(id); }, next_numbers,
      store->options_.log);
  return Opened{std::move(store), std::move(listing)};
}

absl::Status SessionStore::OpenParts() {
  const std::string& root = options_.data_dir;
  MNEME_RETURN_IF_ERROR(EnsureDirectory(*options_.files, absl::StrCat(root, "/checkpoints")));
  MNEME_RETURN_IF_ERROR(RemoveDirectory(*options_.files, absl::StrCat(root, kSpool)));
  MNEME_RETURN_IF_ERROR(EnsureDirectory(*options_.files, absl::StrCat(root, kSpool)));
  MNEME_ASSIGN_OR_RETURN(keys_, KeyFiles::Open(options_.files, absl::StrCat(root, "/keys")));
  MNEME_ASSIGN_OR_RETURN(database_, Database::Open(options_.files, absl::StrCat(root, "/log")));
  MNEME_ASSIGN_OR_RETURN(const std::vector<StoreId> deletions, MarkedDeletions(*database_));
  for (const StoreId& id : deletions) {
    MNEME_RETURN_IF_ERROR(FinishDeletion(
        *database_, *keys_, [this](const StoreId& erased) { return EraseCheckpoints(erased); },
        id));
  }
  return absl::OkStatus();
}

std::string SessionStore::CheckpointDirectory(const StoreId& id) const {
  return absl::StrCat(options_.data_dir, "/checkpoints/", id.ToHex());
}

std::string SessionStore::NewSpoolPath() const {
  return absl::StrCat(options_.data_dir, kSpool, "/", StoreId::Random().ToHex());
}

absl::Status SessionStore::EraseCheckpoints(const StoreId& id) const {
  return RemoveDirectory(*options_.files, CheckpointDirectory(id));
}

absl::StatusOr<SessionListing> SessionStore::List(
    absl::flat_hash_map<StoreId, uint64_t>* next_numbers) const {
  // By the keys, each session alone: so damage to one does not hide the next.
  SessionListing listing;
  MNEME_ASSIGN_OR_RETURN(const std::vector<StoreId> ids, keys_->List());
  for (const StoreId& id : ids) {
    uint64_t next_number = 0;
    absl::StatusOr<ListedSession> session = ReadListed(id, &next_number);
    if (session.ok()) {
      if (session->damage.ok()) next_numbers->emplace(id, next_number);
      listing.sessions.push_back(*std::move(session));
    } else if (!absl::IsNotFound(session.status())) {
      listing.damaged.emplace_back(id, session.status());
    }
  }
  for (const StoreId& id : WithoutKey(ids)) {
    listing.damaged.emplace_back(
        id, absl::DataLossError(absl::StrCat("session ", id.ToHex(), " has no key file")));
  }
  return listing;
}

absl::StatusOr<ListedSession> SessionStore::ReadListed(const StoreId& id,
                                                       uint64_t* next_number) const {
  const std::string key = MetadataKey(id);
  MNEME_ASSIGN_OR_RETURN(const std::optional<std::string> sealed, database_->Get(key));
  // A crash between key and first record: nothing was acknowledged.
  if (!sealed) return absl::NotFoundError("a key without a session");
  MNEME_ASSIGN_OR_RETURN(const SecretKey secret, keys_->Get(id));
  MNEME_ASSIGN_OR_RETURN(const std::string bytes, OpenRecord(secret, key, *sealed));
  ListedSession session{.id = id};
  MNEME_ASSIGN_OR_RETURN(session.metadata, DecodeMetadata(bytes));
  session.last_used_time = session.metadata.create_time;
  session.damage = ReadLogEnd(secret, &session, next_number);
  return session;
}

absl::Status SessionStore::ReadLogEnd(const SecretKey& key, ListedSession* session,
                                      uint64_t* next_number) const {
  MNEME_ASSIGN_OR_RETURN(const auto last, database_->Last(LogPrefix(session->id)));
  if (!last) return absl::OkStatus();
  MNEME_ASSIGN_OR_RETURN(const std::string record, OpenRecord(key, last->first, last->second));
  MNEME_ASSIGN_OR_RETURN(const LogRecordHead head, DecodeLogRecordHead(record));
  session->epoch = head.epoch;
  session->position = head.position;
  session->last_used_time = head.time;
  *next_number = NumberOfKey(last->first) + 1;
  return absl::OkStatus();
}

std::vector<StoreId> SessionStore::WithoutKey(const std::vector<StoreId>& keys) const {
  std::vector<StoreId> missing;
  // What cannot be read here is reported with its session, or was that of a lost key.
  database_
      ->Scan(MetadataPrefix(),
             [&](absl::string_view key, absl::string_view /*value*/) {
               const std::optional<StoreId> id = SessionOfKey(key);
               if (id && !std::binary_search(keys.begin(), keys.end(), *id)) missing.push_back(*id);
               return absl::OkStatus();
             })
      .IgnoreError();
  return missing;
}

}  // namespace mneme
