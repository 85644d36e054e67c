#ifndef MNEME_ENGINE_TIERS_HOST_POOL_H_
#define MNEME_ENGINE_TIERS_HOST_POOL_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace mneme {

// Consecutive bytes somewhere in memory. Not owned.
struct MemoryRange {
  void* data = nullptr;
  int64_t bytes = 0;

  friend bool operator==(const MemoryRange&, const MemoryRange&) = default;
};

class HostMemory;

// Host memory that devices copy from and to at full rate (Backend::AllocateHost). That is slow to
// allocate, so all of it is taken at the start and lent in slabs of one size. It stays as long as
// anything is lent, so the backend must outlive that. Thread-safe.
class HostPool : public std::enable_shared_from_this<HostPool> {
 public:
  static constexpr int64_t kSlabBytes = int64_t{1} << 18;

  // As many slabs as `limit_bytes` holds; none is allowed. RESOURCE_EXHAUSTED if the host has not
  // that much.
  static absl::StatusOr<std::shared_ptr<HostPool>> Create(Backend& backend, int64_t limit_bytes,
                                                          int64_t slab_bytes = kSlabBytes);
  HostPool(const HostPool&) = delete;
  HostPool& operator=(const HostPool&) = delete;

  // `bytes` of unspecified content; nothing if there is not so much left.
  std::optional<HostMemory> Take(int64_t bytes);
  // What memory for `bytes` takes of the limit.
  int64_t SlabBytesFor(int64_t bytes) const;

  int64_t limit_bytes() const { return num_slabs_ * slab_bytes_; }
  int64_t held_bytes() const;

 private:
  friend class HostMemory;

  HostPool(DeviceBuffer memory, int64_t num_slabs, int64_t slab_bytes);
  void Give(const std::vector<int64_t>& slabs);

  const DeviceBuffer memory_;
  const int64_t num_slabs_, slab_bytes_;
  mutable std::mutex mutex_;
  // Descending, so that those lent together mostly lie together. Guarded by mutex_.
  std::vector<int64_t> free_;
};

// Bytes lent by a pool, in one or more ranges; given back with their owner. Or bytes of no pool,
// for states on their way to and from files. The content may be read by several threads, or written
// by one. Move-only.
class HostMemory {
 public:
  // Of no pool, of unspecified content; devices copy from and to it more slowly. Nothing if the
  // host has not that much. Any thread.
  static std::optional<HostMemory> Allocate(int64_t bytes);

  HostMemory(HostMemory&& other) noexcept { *this = std::move(other); }
  HostMemory& operator=(HostMemory&& other) noexcept;
  ~HostMemory();

  int64_t bytes() const { return bytes_; }
  // What of the pool's limit it takes; 0 if it is of none.
  int64_t held_bytes() const;
  bool is_of_pool() const { return pool_ != nullptr; }
  // All its bytes in their order, in ranges that do not touch.
  std::vector<MemoryRange> ranges() const;

 private:
  friend class HostPool;

  HostMemory(std::shared_ptr<HostPool> pool, std::vector<int64_t> slabs, int64_t bytes)
      : pool_(std::move(pool)), slabs_(std::move(slabs)), bytes_(bytes) {}

  HostMemory(std::unique_ptr<std::byte[]> own, int64_t bytes)
      : own_(std::move(own)), bytes_(bytes) {}

  std::shared_ptr<HostPool> pool_;
  std::vector<int64_t> slabs_;        // ascending
  std::unique_ptr<std::byte[]> own_;  // without a pool
  int64_t bytes_ = 0;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_TIERS_HOST_POOL_H_
