#include "engine/session/pool.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace mneme {

MemoryBudget::MemoryBudget(std::vector<PoolShape> pools, int64_t limit_bytes)
    : pools_(std::move(pools)), limit_bytes_(limit_bytes), reserved_(pools_.size(), 0) {}

bool MemoryBudget::Reserve(const BlockCounts& blocks) {
  for (size_t i = 0; i < pools_.size(); ++i) {
    MNEME_CHECK(blocks[i] >= 0);
    if (blocks[i] > pools_[i].capacity - reserved_[i]) return false;
  }
  const int64_t bytes = BytesOf(blocks);
  if (bytes > limit_bytes_ - reserved_bytes_) return false;
  for (size_t i = 0; i < pools_.size(); ++i) reserved_[i] += blocks[i];
  reserved_bytes_ += bytes;
  return true;
}

void MemoryBudget::Release(const BlockCounts& blocks) {
  for (size_t i = 0; i < pools_.size(); ++i) {
    MNEME_CHECK(blocks[i] >= 0 && blocks[i] <= reserved_[i]);
    reserved_[i] -= blocks[i];
  }
  reserved_bytes_ -= BytesOf(blocks);
}

absl::Status MemoryBudget::CheckFits(const BlockCounts& blocks) const {
  const int64_t bytes = BytesOf(blocks);
  if (bytes > limit_bytes_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the request needs ", bytes, " bytes of session memory, but there are only ",
                     limit_bytes_, "; ask for fewer tokens or raise --cache_bytes"));
  }
  for (size_t i = 0; i < pools_.size(); ++i) {
    const PoolShape& pool = pools_[i];
    if (blocks[i] <= pool.capacity) continue;
    return absl::ResourceExhaustedError(absl::StrCat(
        "the request needs ", blocks[i] * pool.block_bytes, " bytes of session memory for ",
        pool.name, ", but its share is only ", pool.capacity * pool.block_bytes,
        "; raise --cache_bytes, or change --session_tokens, by which the memory is shared out"));
  }
  return absl::OkStatus();
}

int64_t MemoryBudget::BytesOf(const BlockCounts& blocks) const {
  int64_t bytes = 0;
  for (size_t i = 0; i < pools_.size(); ++i) bytes += blocks[i] * pools_[i].block_bytes;
  return bytes;
}

absl::StatusOr<BlockPool> BlockPool::Create(Backend& backend, const PoolShape& shape) {
  MNEME_ASSIGN_OR_RETURN(DeviceBuffer memory, backend.Allocate(shape.capacity * shape.block_bytes));
  return BlockPool(std::move(memory), shape);
}

int32_t BlockPool::Take() {
  ++held_blocks_;
  if (free_.empty()) {
    MNEME_CHECK(static_cast<int64_t>(holders_.size()) < capacity_);
    holders_.push_back(1);
    return static_cast<int32_t>(holders_.size() - 1);
  }
  const int32_t block = free_.back();
  free_.pop_back();
  holders_[static_cast<size_t>(block)] = 1;
  return block;
}

void BlockPool::Share(int32_t block) {
  ++holders_[static_cast<size_t>(block)];
  ++held_blocks_;
}

void BlockPool::Give(int32_t block) {
  int32_t& holders = holders_[static_cast<size_t>(block)];
  MNEME_CHECK(holders > 0);
  --held_blocks_;
  if (--holders == 0) free_.push_back(block);
}

}  // namespace mneme
