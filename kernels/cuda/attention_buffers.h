#ifndef MNEME_KERNELS_CUDA_ATTENTION_BUFFERS_H_
#define MNEME_KERNELS_CUDA_ATTENTION_BUFFERS_H_

// The memory that attention plans are made in: pinned on the host, sent to the device.

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/memory.h"

namespace mneme::cuda {

// Memory that is handed out piece by piece and taken back as a whole. Grows by larger blocks until
// one holds all that a round takes.
template <typename Memory>
class Arena {
 public:
  explicit Arena(absl::StatusOr<Memory> (*allocate)(int64_t)) : allocate_(allocate) {}

  // Aligned to 256 bytes. Null, with the failure latched, if there is not that much.
  void* Take(int64_t bytes, ErrorLatch* errors) {
    bytes = (bytes + 255) / 256 * 256;
    if (used_bytes_ + bytes > block_bytes_ && !Grow(bytes, errors)) return nullptr;
    used_bytes_ += bytes;
    return static_cast<char*>(blocks_.back().get()) + used_bytes_ - bytes;
  }
  // Takes everything back.
  void Reset() {
    if (blocks_.size() > 1) blocks_.erase(blocks_.begin(), blocks_.end() - 1);
    used_bytes_ = 0;
  }

 private:
  bool Grow(int64_t bytes, ErrorLatch* errors) {
    constexpr int64_t kFirstBytes = int64_t{1} << 18;
    const int64_t size_bytes = std::max({kFirstBytes, 2 * block_bytes_, bytes});
    absl::StatusOr<Memory> block = allocate_(size_bytes);
    if (!block.ok()) {
      errors->Fail(std::string(block.status().message()));
      return false;
    }
    blocks_.push_back(*std::move(block));
    block_bytes_ = size_bytes;
    used_bytes_ = 0;
    return true;
  }

  absl::StatusOr<Memory> (*allocate_)(int64_t);
  std::vector<Memory> blocks_;  // the last one is in use
  int64_t block_bytes_ = 0;     // of the last one
  int64_t used_bytes_ = 0;
};

// Pinned memory for copies to the device that are still to happen when the next step is planned:
// two arenas in turn, each reused when the device is done with it.
class AlternatingStaging {
 public:
  static absl::StatusOr<std::unique_ptr<AlternatingStaging>> Create();

  void* Take(int64_t bytes, ErrorLatch* errors);
  // What has been taken so far is read by copies that are already queued on the stream.
  void Rotate(const LaunchContext& context);

 private:
  struct Half {
    Arena<PinnedMemory> arena{AllocatePinned};
    EventHandle read;  // recorded when the half was left
  };

  AlternatingStaging() = default;

  std::array<Half, 2> halves_;
  int current_ = 0;
  bool used_ = false;  // since the last Rotate
};

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_ATTENTION_BUFFERS_H_
