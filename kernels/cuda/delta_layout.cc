#include <cstdint>

#include "kernels/cuda/delta.h"

namespace mneme::cuda {
namespace {

int64_t Aligned(int64_t bytes) { return (bytes + 255) / 256 * 256; }

}  // namespace

int64_t DeltaLayout::counter_offset() const { return Aligned(d * f * SizeOf(accumulate)); }

int64_t DeltaLayout::read_offset() const {
  return read == accumulate ? 0 : counter_offset() + Aligned(sizeof(uint32_t));
}

int64_t DeltaLayout::scale_offset() const { return read_offset() + Aligned(d * f * SizeOf(read)); }

int64_t DeltaLayout::total_bytes() const {
  if (read == accumulate) return counter_offset() + Aligned(sizeof(uint32_t));
  return scale_offset() +
         (read == DeltaType::kFp8E4M3 ? Aligned(d * static_cast<int64_t>(sizeof(float))) : 0);
}

}  // namespace mneme::cuda
