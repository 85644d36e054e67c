#include "engine/durability/checkpoint_io.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "base/status_macros.h"
#include "engine/tiers/image_sections.h"

namespace mneme {
namespace {

// Whether what it holds is of the session's past, or under a name that it still has.
bool IsOfUse(const CheckpointName& name, const CheckpointName& newest,
             const absl::flat_hash_set<uint64_t>& names) {
  if (name == newest) return true;
  if (name.name_hash != 0) return names.contains(name.name_hash);
  // Of an earlier epoch and further on: it was rolled back.
  return name.epoch == newest.epoch || name.position <= newest.position;
}

absl::Status DropOld(CheckpointFiles& files, const NewCheckpoint& written,
                     const CheckpointPolicy& policy) {
  const StoreId& id = written.id;
  const CheckpointName newest = CheckpointName::Of(written.info);
  absl::flat_hash_set<uint64_t> hashes;
  for (const std::string& name : written.names) hashes.insert(CheckpointName::HashOf(name));
  hashes.erase(newest.name_hash);  // the new one has it now
  MNEME_ASSIGN_OR_RETURN(std::vector<CheckpointName> names, files.List(id));
  const auto forgotten = std::stable_partition(
      names.begin(), names.end(),
      [&](const CheckpointName& name) { return IsOfUse(name, newest, hashes); });
  std::vector<CheckpointName> drop(forgotten, names.end());
  names.erase(forgotten, names.end());
  const std::vector<CheckpointName> old = CheckpointsToDrop(names, policy);
  drop.insert(drop.end(), old.begin(), old.end());
  return files.Remove(id, drop);
}

}  // namespace

absl::Status WriteCheckpoint(SessionStore& store, const NewCheckpoint& checkpoint,
                             const StateImage& image, const StateFormat& format,
                             const CheckpointPolicy& policy) {
  const auto& [id, info, names] = checkpoint;
  CheckpointFiles files(store);
  MNEME_ASSIGN_OR_RETURN(const std::unique_ptr<CheckpointWriter> writer, files.Create(id, info));
  MNEME_RETURN_IF_ERROR(WriteImage(image, format.pools, info.has_kv, writer->sections()));
  MNEME_RETURN_IF_ERROR(writer->Commit());
  // Deleting destroys the key before it removes checkpoints.
  absl::Status exists = store.keys().Get(id).status();
  if (!absl::IsNotFound(exists)) return DropOld(files, checkpoint, policy);
  MNEME_RETURN_IF_ERROR(files.Remove(id, {CheckpointName::Of(info)}));
  return exists;
}

StoredImage ReadNewestImage(SessionStore& store, const StoreId& id, const SessionState& log,
                            const StateFormat& format, int64_t max_position) {
  StoredImage stored;
  const auto read = [&](CheckpointReader& reader) {
    absl::StatusOr<StateImage> image = ReadImage(reader, format.pools, HostMemory::Allocate);
    if (!image.ok()) return image.status();
    stored.image = *std::move(image);
    return absl::OkStatus();
  };
  absl::StatusOr<Restored> restored =
      CheckpointFiles(store).RestoreNewest({.id = id,
                                            .state = &log,
                                            .model_fingerprint = format.model_fingerprint,
                                            .max_position = max_position,
                                            .needs_kv = true},
                                           read);
  if (!restored.ok()) {
    stored.refused.push_back(restored.status());
    return stored;
  }
  stored.refused = std::move(restored->refused);
  if (!stored.image) return stored;
  for (int64_t i = 0; i < restored->from->updates; ++i) {
    const UpdateApplied& update = log.updates[static_cast<size_t>(i)];
    stored.image->shape.update_log.Add({update.chunk, update.position});
  }
  return stored;
}

}  // namespace mneme
