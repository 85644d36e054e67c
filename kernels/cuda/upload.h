#ifndef MNEME_KERNELS_CUDA_UPLOAD_H_
#define MNEME_KERNELS_CUDA_UPLOAD_H_

// Weights on their way to the device: pieces of pageable host memory go through two pinned buffers
// in turn, so that one is filled while the other travels, and are converted on the device.

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/dtype.h"
#include "kernels/backend.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/memory.h"

namespace mneme::cuda {

// Thread-safe.
class Uploader {
 public:
  static absl::StatusOr<std::unique_ptr<Uploader>> Create(int num_sms);

  // Writes the elements of `part` to device memory `to`, in `dtype` (float32 or bf16), and waits
  // until they are there. INTERNAL if the device failed.
  absl::Status Upload(const HostTensor& part, DType dtype, void* to);

 private:
  struct Lane {
    PinnedMemory pinned;
    DeviceMemory raw;  // what is still to be converted
    EventHandle free;  // recorded behind the last use
  };

  explicit Uploader(int num_sms) : num_sms_(num_sms) {}

  const int num_sms_;
  std::mutex mutex_;
  StreamHandle stream_;
  std::array<Lane, 2> lanes_;
};

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_UPLOAD_H_
