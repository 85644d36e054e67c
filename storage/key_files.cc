#include "storage/key_files.h"

#include <xxhash.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "storage/coding.h"

namespace mneme {
namespace {

constexpr absl::string_view kMagic = "MNEMEKEY";
constexpr uint32_t kVersion = 1;
constexpr absl::string_view kSuffix = ".key";
// magic | version u32 | id | key | xxHash64 of all before
constexpr size_t kFileBytes = 8 + 4 + StoreId::kBytes + SecretKey::kBytes + 8;

std::string EncodeKeyFile(const StoreId& id, const SecretKey& key) {
  ByteWriter writer;
  writer.Raw(kMagic);
  writer.Fixed(kVersion);
  writer.Raw(id.view());
  writer.Raw(key.bytes());
  writer.Fixed<uint64_t>(XXH3_64bits(writer.bytes().data(), writer.bytes().size()));
  return writer.Take();
}

std::optional<SecretKey> DecodeKeyFile(const StoreId& id, absl::string_view bytes) {
  ByteReader reader(bytes);
  const bool known = reader.Raw(kMagic.size()) == kMagic && reader.Fixed<uint32_t>() == kVersion &&
                     reader.Raw(StoreId::kBytes) == id.view();
  const absl::string_view key = reader.Raw(SecretKey::kBytes);
  const auto checksum = reader.Fixed<uint64_t>();
  if (!known || !reader.ok() || checksum != XXH3_64bits(bytes.data(), bytes.size() - 8)) {
    return std::nullopt;
  }
  return SecretKey::FromBytes(key);
}

}  // namespace

absl::StatusOr<std::unique_ptr<KeyFiles>> KeyFiles::Open(std::shared_ptr<FileSystem> files,
                                                         std::string directory) {
  MNEME_RETURN_IF_ERROR(EnsureDirectory(*files, directory));
  MNEME_RETURN_IF_ERROR(AtomicFile::RemoveUnfinished(*files, directory));
  return std::unique_ptr<KeyFiles>(new KeyFiles(std::move(files), std::move(directory)));
}

std::string KeyFiles::PathOf(const StoreId& id) const {
  return absl::StrCat(directory_, "/", id.ToHex(), kSuffix);
}

absl::StatusOr<std::vector<StoreId>> KeyFiles::List() const {
  MNEME_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(*files_, directory_));
  std::vector<StoreId> ids;
  for (absl::string_view name : names) {
    if (!absl::ConsumeSuffix(&name, kSuffix)) continue;
    if (const std::optional<StoreId> id = StoreId::FromHex(name)) ids.push_back(*id);
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

absl::Status KeyFiles::Create(const StoreId& id) {
  const absl::StatusOr<SecretKey> known = Get(id);
  if (known.ok()) return SyncDirectory(*files_, directory_);  // an earlier try may not have
  if (!absl::IsNotFound(known.status())) return known.status();
  const SecretKey key = SecretKey::Random();
  std::string bytes = EncodeKeyFile(id, key);
  MNEME_ASSIGN_OR_RETURN(const std::unique_ptr<AtomicFile> file,
                         AtomicFile::Create(files_, PathOf(id)));
  const absl::Status written = file->Append(bytes);
  Wipe(&bytes);
  MNEME_RETURN_IF_ERROR(written);
  MNEME_RETURN_IF_ERROR(file->Commit());
  const std::lock_guard<std::mutex> lock(mutex_);
  keys_.insert_or_assign(id, key);
  return absl::OkStatus();
}

absl::StatusOr<SecretKey> KeyFiles::Get(const StoreId& id) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = keys_.find(id);
    if (found != keys_.end()) return found->second;
  }
  MNEME_ASSIGN_OR_RETURN(const SecretKey key, Read(id));
  const std::lock_guard<std::mutex> lock(mutex_);
  return keys_.try_emplace(id, key).first->second;
}

absl::StatusOr<SecretKey> KeyFiles::Read(const StoreId& id) const {
  MNEME_ASSIGN_OR_RETURN(const std::unique_ptr<FileSource> file,
                         FileSource::Open(*files_, PathOf(id)));
  std::string bytes(kFileBytes, '\0');
  std::optional<SecretKey> key;
  if (file->size() == kFileBytes) {
    MNEME_RETURN_IF_ERROR(file->ReadAt(0, kFileBytes, bytes.data()));
    key = DecodeKeyFile(id, bytes);
  }
  Wipe(&bytes);
  if (key) return *key;
  return absl::DataLossError(
      absl::StrCat("key file ", PathOf(id), " is damaged: its session cannot be read"));
}

absl::Status KeyFiles::Destroy(const StoreId& id) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    keys_.erase(id);
  }
  return EraseFile(*files_, PathOf(id));
}

absl::StatusOr<SecretKey> ReadOperatorKey(FileSystem& files, const std::string& path) {
  constexpr uint64_t kMaxBytes = 128;
  MNEME_ASSIGN_OR_RETURN(const std::unique_ptr<FileSource> file, FileSource::Open(files, path));
  std::string text(std::min(file->size(), kMaxBytes), '\0');
  MNEME_RETURN_IF_ERROR(file->ReadAt(0, text.size(), text.data()));
  const std::string hex(absl::StripAsciiWhitespace(text));
  Wipe(&text);
  const bool digits = std::all_of(hex.begin(), hex.end(), absl::ascii_isxdigit);
  if (hex.size() == 2 * SecretKey::kBytes && digits) {
    return SecretKey::FromBytes(absl::HexStringToBytes(hex));
  }
  return absl::InvalidArgumentError(
      absl::StrCat(path, " is no key: it must hold 64 hexadecimal digits (openssl rand -hex 32)"));
}

}  // namespace mneme
