#ifndef MNEME_KERNELS_CPU_SCRATCH_H_
#define MNEME_KERNELS_CPU_SCRATCH_H_

#include <cstdint>
#include <memory>

namespace mneme {

// Memory that an operation uses and the next one overwrites. Grows to the largest request and
// stays, so that steps do not allocate. One thread at a time.
class Scratch {
 public:
  // `bytes` of unspecified content, aligned to 64; valid until the next call. Throws
  // std::bad_alloc.
  void* Bytes(int64_t bytes);
  float* Floats(int64_t count) { return static_cast<float*>(Bytes(count * 4)); }
  double* Doubles(int64_t count) { return static_cast<double*>(Bytes(count * 8)); }

 private:
  struct Free {
    void operator()(void* memory) const;
  };

  std::unique_ptr<void, Free> memory_;
  int64_t capacity_bytes_ = 0;
};

}  // namespace mneme

#endif  // MNEME_KERNELS_CPU_SCRATCH_H_
