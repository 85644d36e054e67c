#include "kernels/cuda/staging.h"

#include <cstring>

#include "absl/memory/memory.h"
#include "base/status_macros.h"

namespace mneme::cuda {

absl::StatusOr<std::unique_ptr<Staging>> Staging::Create() {
  auto staging = absl::WrapUnique(new Staging());
  MNEME_ASSIGN_OR_RETURN(staging->memory_, AllocatePinned(kBytes));
  return staging;
}

void* Staging::Take(int64_t bytes) {
  const int64_t padded_bytes = (bytes + 15) / 16 * 16;
  if (padded_bytes > kBytes - used_bytes_) return nullptr;
  void* const place = static_cast<char*>(memory_.get()) + used_bytes_;
  used_bytes_ += padded_bytes;
  return place;
}

void Staging::DeliverLater(const void* staged, void* host, int64_t bytes) {
  deliveries_.push_back({staged, host, bytes});
}

void Staging::Finish() {
  for (const Delivery& delivery : deliveries_) {
    std::memcpy(delivery.host, delivery.staged, static_cast<size_t>(delivery.bytes));
  }
  deliveries_.clear();
  used_bytes_ = 0;
}

}  // namespace mneme::cuda
