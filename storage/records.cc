#include "storage/records.h"

#include <rocksdb/write_batch.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace mneme {
namespace {

constexpr absl::string_view kDeletion = "D";
constexpr absl::string_view kLog = "L";
constexpr absl::string_view kMetadata = "M";

absl::Status Damaged(const StoreId& id, absl::string_view why) {
  return absl::DataLossError(absl::StrCat("the log of session ", id.ToHex(), ": ", why));
}

}  // namespace

std::string MetadataKey(const StoreId& id) { return absl::StrCat(kMetadata, id.view()); }
std::string DeletionKey(const StoreId& id) { return absl::StrCat(kDeletion, id.view()); }
std::string LogPrefix(const StoreId& id) { return absl::StrCat(kLog, id.view()); }
absl::string_view MetadataPrefix() { return kMetadata; }
absl::string_view DeletionPrefix() { return kDeletion; }

std::string LogKey(const StoreId& id, uint64_t number) {
  std::string key = LogPrefix(id);
  for (int shift = 56; shift >= 0; shift -= 8) key.push_back(static_cast<char>(number >> shift));
  return key;
}

std::optional<StoreId> SessionOfKey(absl::string_view key) {
  if (key.size() < 1 + StoreId::kBytes) return std::nullopt;
  return StoreId::FromBytes(key.substr(1));
}

uint64_t NumberOfKey(absl::string_view key) {
  uint64_t number = 0;
  for (const char byte : key.substr(1 + StoreId::kBytes)) {
    number = number << 8 | static_cast<unsigned char>(byte);
  }
  return number;
}

std::string SealRecord(const SecretKey& key, absl::string_view record_key,
                       absl::string_view plaintext) {
  const Nonce nonce = RandomNonce();
  std::string sealed(nonce.data(), nonce.size());
  Seal(key, nonce, record_key, plaintext, &sealed);
  return sealed;
}

absl::StatusOr<std::string> OpenRecord(const SecretKey& key, absl::string_view record_key,
                                       absl::string_view sealed) {
  if (sealed.size() >= kNonceBytes + kTagBytes) {
    Nonce nonce;
    sealed.copy(nonce.data(), nonce.size());
    sealed.remove_prefix(nonce.size());
    std::string plaintext(sealed.size() - kTagBytes, '\0');
    if (Unseal(key, nonce, record_key, sealed, plaintext.data())) return plaintext;
  }
  return absl::DataLossError("a record is damaged, or was sealed for another place");
}

absl::StatusOr<SessionState> ReadLog(const Database& database, KeyFiles& keys, const StoreId& id,
                                     LogRecordHead* last) {
  MNEME_ASSIGN_OR_RETURN(const SecretKey key, keys.Get(id));
  SessionState state;
  std::optional<uint64_t> last_number;
  const absl::Status read = database.Scan(
      LogPrefix(id), [&](absl::string_view record_key, absl::string_view sealed) -> absl::Status {
        MNEME_ASSIGN_OR_RETURN(std::string record, OpenRecord(key, record_key, sealed));
        MNEME_ASSIGN_OR_RETURN(const LogRecordHead head, ApplyLogRecord(record, &state));
        const uint64_t number = NumberOfKey(record_key);
        if (!head.whole && number != (last_number ? *last_number + 1 : 0)) {
          return absl::DataLossError(
              absl::StrCat("records before number ", number, " are missing"));
        }
        last_number = number;
        if (last != nullptr) *last = head;
        return absl::OkStatus();
      });
  if (absl::IsDataLoss(read)) {
    return Damaged(id, absl::string_view(read.message().data(), read.message().size()));
  }
  MNEME_RETURN_IF_ERROR(read);
  return state;
}

absl::Status FinishDeletion(Database& database, KeyFiles& keys, const EraseFiles& erase_files,
                            const StoreId& id) {
  MNEME_RETURN_IF_ERROR(keys.Destroy(id));
  MNEME_RETURN_IF_ERROR(erase_files(id));
  rocksdb::WriteBatch batch;
  batch.DeleteRange(LogKey(id, 0), LogKey(id, UINT64_MAX));
  batch.Delete(MetadataKey(id));
  batch.Delete(DeletionKey(id));
  return database.Write(&batch, /*sync=*/false);
}

absl::StatusOr<std::vector<StoreId>> MarkedDeletions(const Database& database) {
  std::vector<StoreId> ids;
  MNEME_RETURN_IF_ERROR(
      database.Scan(DeletionPrefix(), [&ids](absl::string_view key, absl::string_view /*value*/) {
        if (const std::optional<StoreId> id = SessionOfKey(key)) ids.push_back(*id);
        return absl::OkStatus();
      }));
  return ids;
}

}  // namespace mneme
