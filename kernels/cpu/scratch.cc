#include "kernels/cpu/scratch.h"

#include <new>

namespace mneme {
namespace {

constexpr std::align_val_t kAlignment{64};

}  // namespace

void Scratch::Free::operator()(void* memory) const { ::operator delete(memory, kAlignment); }

void* Scratch::Bytes(int64_t bytes) {
  if (bytes > capacity_bytes_) {
    capacity_bytes_ = 0;
    memory_.reset();
    memory_.reset(::operator new(static_cast<size_t>(bytes), kAlignment));
    capacity_bytes_ = bytes;
  }
  return memory_.get();
}

}  // namespace mneme
