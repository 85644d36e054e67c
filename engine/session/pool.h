#ifndef MNEME_ENGINE_SESSION_POOL_H_
#define MNEME_ENGINE_SESSION_POOL_H_

// Device memory in blocks of one size, and the budget that all pools share.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace mneme {

// How many blocks of each of an engine's pools, in the pools' order.
using BlockCounts = std::vector<int64_t>;

// What a pool consists of.
struct PoolShape {
  std::string name;  // of what the blocks hold, for messages
  int64_t block_bytes = 0;
  int64_t capacity = 0;  // blocks
};

// Blocks that may be promised to sessions: of each pool as many as it has, of all pools together
// as many as the limit allows. One thread.
class MemoryBudget {
 public:
  MemoryBudget(std::vector<PoolShape> pools, int64_t limit_bytes);

  // False, and nothing reserved, if a pool's end or the limit would be passed.
  bool Reserve(const BlockCounts& blocks);
  void Release(const BlockCounts& blocks);
  // RESOURCE_EXHAUSTED, with the pool and what to do, if `blocks` could not be reserved even if
  // nothing else were.
  absl::Status CheckFits(const BlockCounts& blocks) const;

  int64_t BytesOf(const BlockCounts& blocks) const;
  const std::vector<PoolShape>& pools() const { return pools_; }
  int64_t limit_bytes() const { return limit_bytes_; }
  int64_t reserved_bytes() const { return reserved_bytes_; }

 private:
  const std::vector<PoolShape> pools_;
  const int64_t limit_bytes_;
  BlockCounts reserved_;
  int64_t reserved_bytes_ = 0;
};

// Equal blocks of one contiguous allocation, so that a block's number is its address. A block may
// have several holders, and counts once for each: so each of them can have a copy of its own at any
// time. Who becomes a holder has reserved a block in the budget before. One thread.
class BlockPool {
 public:
  // RESOURCE_EXHAUSTED if the device has not that much.
  static absl::StatusOr<BlockPool> Create(Backend& backend, const PoolShape& shape);

  // A block of unspecified content, with one holder.
  int32_t Take();
  // One holder more. Nobody writes to a block that has several.
  void Share(int32_t block);
  // One holder less; with the last the block is free.
  void Give(int32_t block);
  bool IsShared(int32_t block) const { return holders_[static_cast<size_t>(block)] > 1; }

  void* Address(int32_t block) const {
    return static_cast<char*>(memory_.data()) + block * block_bytes_;
  }
  int64_t block_bytes() const { return block_bytes_; }
  // Once for each holder.
  int64_t held_blocks() const { return held_blocks_; }

 private:
  BlockPool(DeviceBuffer memory, const PoolShape& shape)
      : memory_(std::move(memory)), block_bytes_(shape.block_bytes), capacity_(shape.capacity) {}

  DeviceBuffer memory_;
  int64_t block_bytes_;
  int64_t capacity_;
  int64_t held_blocks_ = 0;
  std::vector<int32_t> holders_;  // of the blocks that were ever taken
  std::vector<int32_t> free_;     // given back, the next to be taken last
};

}  // namespace mneme

#endif  // MNEME_ENGINE_SESSION_POOL_H_
