#include "engine/pool.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace mneme {

bool MemoryBudget::Reserve(int64_t bytes) {
  MNEME_CHECK(bytes >= 0);
  if (bytes > limit_bytes_ - reserved_bytes_) return false;
  reserved_bytes_ += bytes;
  return true;
}

void MemoryBudget::Release(int64_t bytes) {
  MNEME_CHECK(bytes >= 0 && bytes <= reserved_bytes_);
  reserved_bytes_ -= bytes;
}

absl::StatusOr<BlockPool> BlockPool::Create(Backend& backend, int64_t block_bytes,
                                            int64_t limit_bytes) {
  const int64_t capacity =
      std::min<int64_t>(limit_bytes / block_bytes, std::numeric_limits<int32_t>::max());
  if (capacity == 0) {
    return absl::ResourceExhaustedError(absl::StrCat("one block of session memory takes ",
                                                     block_bytes, " bytes, but only ", limit_bytes,
                                                     " are allowed; raise --cache_bytes"));
  }
  MNEME_ASSIGN_OR_RETURN(DeviceBuffer memory, backend.Allocate(capacity * block_bytes));
  return BlockPool(std::move(memory), block_bytes, capacity);
}

int32_t BlockPool::Take() {
  if (free_.empty()) {
    MNEME_CHECK(next_fresh_ < capacity_);
    return static_cast<int32_t>(next_fresh_++);
  }
  const int32_t block = free_.back();
  free_.pop_back();
  return block;
}

void BlockPool::Give(int32_t block) {
  MNEME_CHECK(block >= 0 && block < next_fresh_);
  free_.push_back(block);
}

}  // namespace mneme
