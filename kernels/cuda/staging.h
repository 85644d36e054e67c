#ifndef MNEME_KERNELS_CUDA_STAGING_H_
#define MNEME_KERNELS_CUDA_STAGING_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cuda/memory.h"

namespace mneme::cuda {

// Pinned host memory that small copies go through, so that they are asynchronous whatever memory
// the caller has. It is handed out piece by piece and free again as a whole. One thread.
class Staging {
 public:
  static constexpr int64_t kBytes = int64_t{16} << 20;

  static absl::StatusOr<std::unique_ptr<Staging>> Create();

  // Memory aligned to 16 bytes that stays until Finish; null if there is not enough left.
  void* Take(int64_t bytes);
  // At Finish, `bytes` go from `staged`, which Take gave, to `host`.
  void DeliverLater(const void* staged, void* host, int64_t bytes);
  // The device is done with all memory handed out: delivers and takes everything back.
  void Finish();

 private:
  struct Delivery {
    const void* staged;
    void* host;
    int64_t bytes;
  };

  Staging() = default;

  PinnedMemory memory_;
  int64_t used_bytes_ = 0;
  std::vector<Delivery> deliveries_;
};

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_STAGING_H_
