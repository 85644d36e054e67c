#ifndef MNEME_ENGINE_POOL_H_
#define MNEME_ENGINE_POOL_H_

// Device memory in blocks of one size, and the budget that all pools share.

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace mneme {

// Bytes that may be promised to sessions. One thread.
class MemoryBudget {
 public:
  explicit MemoryBudget(int64_t limit_bytes) : limit_bytes_(limit_bytes) {}

  // False, and nothing reserved, if the limit would be passed.
  bool Reserve(int64_t bytes);
  void Release(int64_t bytes);

  int64_t limit_bytes() const { return limit_bytes_; }
  int64_t reserved_bytes() const { return reserved_bytes_; }

 private:
  const int64_t limit_bytes_;
  int64_t reserved_bytes_ = 0;
};

// Equal blocks of one contiguous allocation, so that a block's number is its address. Who takes a
// block has reserved its bytes in the budget before. One thread.
class BlockPool {
 public:
  // A pool whose blocks can fill `limit_bytes` on their own. RESOURCE_EXHAUSTED if the device has
  // not that much, or a block does not fit.
  static absl::StatusOr<BlockPool> Create(Backend& backend, int64_t block_bytes,
                                          int64_t limit_bytes);

  // A block of unspecified content.
  int32_t Take();
  void Give(int32_t block);

  void* Address(int32_t block) const {
    return static_cast<char*>(memory_.data()) + block * block_bytes_;
  }
  int64_t block_bytes() const { return block_bytes_; }
  int64_t held_blocks() const { return next_fresh_ - static_cast<int64_t>(free_.size()); }

 private:
  BlockPool(DeviceBuffer memory, int64_t block_bytes, int64_t capacity)
      : memory_(std::move(memory)), block_bytes_(block_bytes), capacity_(capacity) {}

  DeviceBuffer memory_;
  int64_t block_bytes_;
  int64_t capacity_;
  int64_t next_fresh_ = 0;     // blocks from here on were never taken
  std::vector<int32_t> free_;  // given back, the next to be taken last
};

}  // namespace mneme

#endif  // MNEME_ENGINE_POOL_H_
