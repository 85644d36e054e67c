#include "engine/durability/disk_usage.h"

#include "engine/durability/storage_error.h"
#include "engine/tiers/tier_policy.h"

namespace mneme {
namespace {

std::vector<std::pair<StoreId, CheckpointBytes>> Measure(SessionStore& store,
                                                         const std::vector<StoreId>& ids) {
  std::vector<std::pair<StoreId, CheckpointBytes>> found;
  for (const StoreId& id : ids) found.emplace_back(id, CheckpointFiles(store).Bytes(id));
  return found;
}

}  // namespace

void DiskUsage::Survey(const std::vector<Session*>& sessions) {
  std::vector<StoreId> ids;
  for (const Session* session : sessions) {
    Track(*session);
    ids.push_back(log_.IdOf(*session));
  }
  if (ids.empty()) return;
  log_.RunOnDisk([this, ids = std::move(ids)](SessionStore& store) {
    return [this, found = Measure(store, ids)] {
      for (const auto& [id, bytes] : found) Set(id, bytes);
    };
  });
}

void DiskUsage::Track(const Session& session) { bytes_of_.try_emplace(log_.IdOf(session)); }

void DiskUsage::Forget(const Session& session) {
  if (!log_.Keeps(session)) return;
  Set(log_.IdOf(session), {});
  bytes_of_.erase(log_.IdOf(session));
}

void DiskUsage::Set(const StoreId& id, const CheckpointBytes& bytes) {
  const auto found = bytes_of_.find(id);
  if (found == bytes_of_.end() || found->second == bytes) return;
  bytes_ += bytes.all - found->second.all;
  found->second = bytes;
  changed_ = true;
}

CheckpointBytes DiskUsage::BytesOf(const Session& session) const {
  if (!log_.Keeps(session)) return {};
  const auto found = bytes_of_.find(log_.IdOf(session));
  return found == bytes_of_.end() ? CheckpointBytes() : found->second;
}

void DiskUsage::EraseForgotten(const Session& session) {
  log_.RunOnDisk(
      [this, id = log_.IdOf(session), names = session.CheckpointNames()](SessionStore& store) {
        CheckpointFiles(store).RemoveNamedBut(id, names).IgnoreError();  // what stays is counted
        return [this, id, bytes = CheckpointFiles(store).Bytes(id)] { Set(id, bytes); };
      });
}

std::vector<Session*> DiskUsage::Trim(const std::vector<Session*>& sessions) {
  changed_ = false;
  std::vector<DiskCandidate> candidates;
  for (const Session* session : sessions) {
    const CheckpointBytes bytes = BytesOf(*session);
    candidates.push_back({.tenant = session->key().tenant,
                          .last_used = session->last_used_time(),
                          .bytes = bytes.all,
                          .kept_bytes = bytes.named});
  }
  std::vector<Session*> erased;
  for (const size_t i : ChooseToErase(candidates, limits_.bytes, limits_.tenant_bytes)) {
    const StoreId id = log_.IdOf(*sessions[i]);
    erased.push_back(sessions[i]);
    Set(id, {.all = candidates[i].kept_bytes, .named = candidates[i].kept_bytes});
    log_.RunOnDisk([this, id](SessionStore& store) {
      CheckpointFiles(store).RemoveUnnamed(id).IgnoreError();  // what stays is counted
      return [this, id, bytes = CheckpointFiles(store).Bytes(id)] {
        Set(id, bytes);
        if (bytes.all > bytes.named) retry_ = clock_.Now() + kStorageRetryDelay;
      };
    });
  }
  changed_ = false;
  return erased;
}

absl::Time DiskUsage::NextTrim() const {
  const bool limited = limits_.bytes > 0 || limits_.tenant_bytes > 0;
  return limited && changed_ ? retry_ : absl::InfiniteFuture();
}

}  // namespace mneme
