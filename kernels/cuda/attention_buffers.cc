#include "kernels/cuda/attention_buffers.h"

#include "absl/memory/memory.h"
#include "base/status_macros.h"

namespace mneme::cuda {

absl::StatusOr<std::unique_ptr<AlternatingStaging>> AlternatingStaging::Create() {
  auto staging = absl::WrapUnique(new AlternatingStaging());
  for (Half& half : staging->halves_) {
    MNEME_ASSIGN_OR_RETURN(half.read, CreateEventHandle(cudaEventDisableTiming));
  }
  return staging;
}

void* AlternatingStaging::Take(int64_t bytes, ErrorLatch* errors) {
  used_ = true;
  return halves_[static_cast<size_t>(current_)].arena.Take(bytes, errors);
}

void AlternatingStaging::Rotate(const LaunchContext& context) {
  if (!used_) return;
  used_ = false;
  context.errors->Check(
      cudaEventRecord(halves_[static_cast<size_t>(current_)].read.get(), context.stream),
      "cudaEventRecord");
  current_ = 1 - current_;
  Half& half = halves_[static_cast<size_t>(current_)];
  context.errors->Check(cudaEventSynchronize(half.read.get()), "cudaEventSynchronize");
  half.arena.Reset();
}

}  // namespace mneme::cuda
