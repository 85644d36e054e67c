#include "engine/tiers/host_pool.h"

#include <algorithm>
#include <functional>
#include <new>
#include <utility>

#include "base/check.h"
#include "base/status_macros.h"

namespace mneme {

HostPool::HostPool(DeviceBuffer memory, int64_t num_slabs, int64_t slab_bytes)
    : memory_(std::move(memory)), num_slabs_(num_slabs), slab_bytes_(slab_bytes) {
  for (int64_t slab = num_slabs; slab-- > 0;) free_.push_back(slab);
}

absl::StatusOr<std::shared_ptr<HostPool>> HostPool::Create(Backend& backend, int64_t limit_bytes,
                                                           int64_t slab_bytes) {
  const int64_t num_slabs = limit_bytes / slab_bytes;
  DeviceBuffer memory;
  if (num_slabs > 0) {
    MNEME_ASSIGN_OR_RETURN(memory, backend.AllocateHost(num_slabs * slab_bytes));
  }
  return std::shared_ptr<HostPool>(new HostPool(std::move(memory), num_slabs, slab_bytes));
}

int64_t HostPool::SlabBytesFor(int64_t bytes) const {
  return (bytes + slab_bytes_ - 1) / slab_bytes_ * slab_bytes_;
}

std::optional<HostMemory> HostPool::Take(int64_t bytes) {
  const auto count = static_cast<size_t>(SlabBytesFor(bytes) / slab_bytes_);
  const std::lock_guard lock(mutex_);
  if (count > free_.size()) return std::nullopt;
  std::vector<int64_t> slabs(free_.rbegin(), free_.rbegin() + static_cast<std::ptrdiff_t>(count));
  free_.resize(free_.size() - count);
  return HostMemory(shared_from_this(), std::move(slabs), bytes);
}

int64_t HostPool::held_bytes() const {
  const std::lock_guard lock(mutex_);
  return limit_bytes() - static_cast<int64_t>(free_.size()) * slab_bytes_;
}

void HostPool::Give(const std::vector<int64_t>& slabs) {
  const std::lock_guard lock(mutex_);
  const auto middle = static_cast<std::ptrdiff_t>(free_.size());
  free_.insert(free_.end(), slabs.rbegin(), slabs.rend());
  std::inplace_merge(free_.begin(), free_.begin() + middle, free_.end(), std::greater<>());
  MNEME_CHECK(static_cast<int64_t>(free_.size()) <= num_slabs_);
}

std::optional<HostMemory> HostMemory::Allocate(int64_t bytes) {
  std::unique_ptr<std::byte[]> own(new (std::nothrow) std::byte[static_cast<size_t>(bytes)]);
  if (own == nullptr) return std::nullopt;
  return HostMemory(std::move(own), bytes);
}

HostMemory& HostMemory::operator=(HostMemory&& other) noexcept {
  std::swap(pool_, other.pool_);
  std::swap(slabs_, other.slabs_);
  std::swap(own_, other.own_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

HostMemory::~HostMemory() {
  if (pool_ != nullptr) pool_->Give(slabs_);
}

int64_t HostMemory::held_bytes() const {
  return pool_ == nullptr ? 0 : pool_->SlabBytesFor(bytes_);
}

std::vector<MemoryRange> HostMemory::ranges() const {
  std::vector<MemoryRange> ranges;
  if (pool_ == nullptr && bytes_ > 0) ranges.push_back({own_.get(), bytes_});
  if (pool_ == nullptr) return ranges;
  char* const base = static_cast<char*>(pool_->memory_.data());
  for (size_t i = 0; i < slabs_.size(); ++i) {
    char* const data = base + slabs_[i] * pool_->slab_bytes_;
    const int64_t bytes =
        std::min(pool_->slab_bytes_, bytes_ - static_cast<int64_t>(i) * pool_->slab_bytes_);
    const bool touches =
        !ranges.empty() && static_cast<char*>(ranges.back().data) + ranges.back().bytes == data;
    if (touches) {
      ranges.back().bytes += bytes;
    } else {
      ranges.push_back({data, bytes});
    }
  }
  return ranges;
}

}  // namespace mneme
