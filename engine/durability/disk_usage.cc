#include "engine/durability/disk_usage.h"

#include "engine/tiers/tier_policy.h"
#include "storage/checkpoint_files.h"

namespace mneme {
namespace {

std::vector<std::pair<StoreId, int64_t>> Measure(SessionStore& store,
                                                 const std::vector<StoreId>& ids) {
  std::vector<std::pair<StoreId, int64_t>> found;
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

void DiskUsage::Track(const Session& session) { bytes_of_.try_emplace(log_.IdOf(session), 0); }

void DiskUsage::Forget(const Session& session) {
  if (!log_.Keeps(session)) return;
  Set(log_.IdOf(session), 0);
  bytes_of_.erase(log_.IdOf(session));
}

void DiskUsage::Set(const StoreId& id, int64_t bytes) {
  const auto found = bytes_of_.find(id);
  if (found == bytes_of_.end() || found->second == bytes) return;
  bytes_ += bytes - found->second;
  found->second = bytes;
  changed_ = true;
}

int64_t DiskUsage::BytesOf(const Session& session) const {
  if (!log_.Keeps(session)) return 0;
  const auto found = bytes_of_.find(log_.IdOf(session));
  return found == bytes_of_.end() ? 0 : found->second;
}

std::vector<Session*> DiskUsage::Trim(const std::vector<Session*>& sessions) {
  changed_ = false;
  std::vector<DiskCandidate> candidates;
  for (const Session* session : sessions) {
    candidates.push_back({.tenant = session->key().tenant,
                          .last_used = session->last_used_time(),
                          .bytes = BytesOf(*session)});
  }
  std::vector<Session*> erased;
  for (const size_t i : ChooseToErase(candidates, limits_.bytes, limits_.tenant_bytes)) {
    const StoreId id = log_.IdOf(*sessions[i]);
    erased.push_back(sessions[i]);
    Set(id, 0);
    log_.RunOnDisk([this, id](SessionStore& store) {
      CheckpointFiles(store).RemoveUnnamed(id).IgnoreError();  // what stays is counted
      return [this, id, bytes = CheckpointFiles(store).Bytes(id)] {
        Set(id, bytes);
        if (bytes > 0) retry_ = clock_.Now() + SessionLog::kRetryDelay;
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
