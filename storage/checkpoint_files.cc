#include "storage/checkpoint_files.h"

#include <algorithm>
#include <cstdio>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"

namespace mneme {
namespace {

constexpr const char* kSuffix = ".checkpoint";

}  // namespace

uint64_t CheckpointName::HashOf(const std::string& name) {
  // A hash of 0 would read as no name.
  return name.empty() ? 0 : std::max<uint64_t>(Checksum(name), 1);
}

CheckpointName CheckpointName::Of(const CheckpointInfo& info) {
  return {.position = info.position,
          .epoch = info.epoch,
          .has_kv = info.has_kv,
          .name_hash = HashOf(info.name)};
}

std::string CheckpointName::ToFileName() const {
  return absl::StrFormat("%016x-%08x-%016x%s%s", position, epoch, name_hash, has_kv ? "-kv" : "",
                         kSuffix);
}

std::optional<CheckpointName> CheckpointName::FromFileName(const std::string& file_name) {
  CheckpointName name;
  unsigned long long position = 0, name_hash = 0;
  if (std::sscanf(file_name.c_str(), "%16llx-%8x-%16llx", &position, &name.epoch, &name_hash) < 3) {
    return std::nullopt;
  }
  name.position = static_cast<int64_t>(position);
  name.name_hash = name_hash;
  name.has_kv = absl::StrContains(file_name, "-kv");
  if (name.position < 0 || name.ToFileName() != file_name) return std::nullopt;
  return name;
}

bool CheckpointDue(const CheckpointPolicy& policy, int64_t position, int64_t last_position,
                   absl::Duration elapsed) {
  if (position <= last_position) return false;
  const bool by_tokens = policy.every_tokens > 0 && position - last_position >= policy.every_tokens;
  return by_tokens || elapsed >= policy.every;
}

std::vector<CheckpointName> CheckpointsToDrop(const std::vector<CheckpointName>& checkpoints,
                                              const CheckpointPolicy& policy) {
  std::vector<CheckpointName> drop;
  int kept = 0;
  bool kv_kept = false;
  for (const CheckpointName& name : checkpoints) {
    const bool is_newest_kv = name.has_kv && !kv_kept;
    if (name.name_hash != 0 || kept < policy.keep || is_newest_kv) {
      if (name.name_hash == 0) ++kept;
      kv_kept = kv_kept || name.has_kv;
    } else {
      drop.push_back(name);
    }
  }
  return drop;
}

std::string CheckpointFiles::PathOf(const StoreId& id, const CheckpointName& name) const {
  return absl::StrCat(store_.CheckpointDirectory(id), "/", name.ToFileName());
}

absl::StatusOr<std::unique_ptr<CheckpointWriter>> CheckpointFiles::Create(
    const StoreId& id, const CheckpointInfo& info) {
  MNEME_ASSIGN_OR_RETURN(const SecretKey key, store_.keys().Get(id));
  const std::string directory = store_.CheckpointDirectory(id);
  MNEME_RETURN_IF_ERROR(EnsureDirectory(*store_.files(), directory));
  MNEME_RETURN_IF_ERROR(AtomicFile::RemoveUnfinished(*store_.files(), directory));
  return CheckpointWriter::Create(store_.files(), PathOf(id, CheckpointName::Of(info)), id, key,
                                  info);
}

absl::StatusOr<std::vector<CheckpointName>> CheckpointFiles::List(const StoreId& id) const {
  MNEME_ASSIGN_OR_RETURN(const std::vector<std::string> files,
                         ListDirectory(*store_.files(), store_.CheckpointDirectory(id)));
  std::vector<CheckpointName> names;
  for (const std::string& file : files) {
    if (const auto name = CheckpointName::FromFileName(file)) names.push_back(*name);
  }
  std::sort(names.rbegin(), names.rend());
  return names;
}

absl::Status CheckpointFiles::Remove(const StoreId& id, const std::vector<CheckpointName>& names) {
  for (const CheckpointName& name : names) {
    MNEME_RETURN_IF_ERROR(RemoveFile(*store_.files(), PathOf(id, name)));
  }
  return absl::OkStatus();
}

absl::Status CheckpointFiles::RemoveUnnamed(const StoreId& id) {
  MNEME_ASSIGN_OR_RETURN(std::vector<CheckpointName> names, List(id));
  std::erase_if(names, [](const CheckpointName& name) { return name.name_hash != 0; });
  return Remove(id, names);
}

absl::Status CheckpointFiles::RemoveNamedBut(const StoreId& id,
                                             const std::vector<std::string>& names) {
  MNEME_ASSIGN_OR_RETURN(std::vector<CheckpointName> files, List(id));
  std::erase_if(files, [&names](const CheckpointName& file) {
    return file.name_hash == 0 ||
           std::any_of(names.begin(), names.end(), [&file](const std::string& name) {
             return CheckpointName::HashOf(name) == file.name_hash;
           });
  });
  return Remove(id, files);
}

CheckpointBytes CheckpointFiles::Bytes(const StoreId& id) const {
  const absl::StatusOr<std::vector<CheckpointName>> names = List(id);
  CheckpointBytes bytes;
  if (!names.ok()) return bytes;
  for (const CheckpointName& name : *names) {
    const int64_t file_bytes = FileBytes(*store_.files(), PathOf(id, name)).value_or(0);
    bytes.all += file_bytes;
    if (name.name_hash != 0) bytes.named += file_bytes;
  }
  return bytes;
}

absl::Status CheckpointFiles::RestoreFrom(const RestoreRequest& request, const SecretKey& key,
                                          const CheckpointName& name, const Restore& restore,
                                          CheckpointInfo* info) const {
  const std::string path = PathOf(request.id, name);
  MNEME_ASSIGN_OR_RETURN(const std::unique_ptr<FileSource> file,
                         FileSource::Open(*store_.files(), path));
  MNEME_ASSIGN_OR_RETURN(CheckpointReader reader,
                         CheckpointReader::Open(path, *file, request.id, key));
  if (CheckpointName::Of(reader.info()) != name) {
    return absl::DataLossError(absl::StrCat(path, " holds another checkpoint than it says"));
  }
  MNEME_RETURN_IF_ERROR(CheckFits(reader.info(), *request.state, request.model_fingerprint));
  *info = reader.info();
  return restore(reader);
}

absl::StatusOr<Restored> CheckpointFiles::RestoreNewest(const RestoreRequest& request,
                                                        const Restore& restore) const {
  MNEME_ASSIGN_OR_RETURN(const SecretKey key, store_.keys().Get(request.id));
  MNEME_ASSIGN_OR_RETURN(const std::vector<CheckpointName> names, List(request.id));
  Restored restored;
  for (const CheckpointName& name : names) {
    if (name.position > request.max_position || (request.needs_kv && !name.has_kv)) continue;
    CheckpointInfo info;
    const absl::Status status = RestoreFrom(request, key, name, restore, &info);
    if (status.ok()) {
      restored.from = std::move(info);
      return restored;
    }
    const bool try_older = absl::IsDataLoss(status) || absl::IsFailedPrecondition(status) ||
                           absl::IsUnavailable(status) || absl::IsNotFound(status);
    if (!try_older) return status;
    restored.refused.push_back(status);
  }
  return restored;
}

}  // namespace mneme
