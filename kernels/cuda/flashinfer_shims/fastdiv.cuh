// In place of flashinfer/fastdiv.cuh (whose guard it takes), which needs a newer CCCL than CUDA
// 13.0 brings: division by a number that stays the same, as a product.
#ifndef FLASHINFER_FASTDIV_CUH_
#define FLASHINFER_FASTDIV_CUH_

#include <cstdint>

namespace flashinfer {

struct uint_fastdiv {
  uint_fastdiv() = default;
  // 2^(32 + shift) / d rounded up, less 2^32: n / d is then exact for every 32-bit n (Granlund and
  // Montgomery, "Division by invariant integers using multiplication", 1994, figure 4.1).
  __host__ uint_fastdiv(uint32_t d) : divisor_(d == 0 ? 1 : d) {
    uint32_t log2 = 0;
    while (log2 < 32 && (uint64_t{1} << log2) < divisor_) ++log2;
    multiplier_ = static_cast<uint32_t>((((uint64_t{1} << log2) - divisor_) << 32) / divisor_ + 1);
    first_shift_ = log2 > 0 ? 1 : 0;
    second_shift_ = log2 > 0 ? log2 - 1 : 0;
  }

  __host__ __device__ operator unsigned int() const { return divisor_; }

  __host__ __device__ __forceinline__ uint32_t quotient(uint32_t n) const {
#ifdef __CUDA_ARCH__
    const uint32_t high = __umulhi(n, multiplier_);
#else
    const uint32_t high = static_cast<uint32_t>((uint64_t{n} * multiplier_) >> 32);
#endif
    return (high + ((n - high) >> first_shift_)) >> second_shift_;
  }
  __host__ __device__ __forceinline__ void divmod(uint32_t n, uint32_t& q, uint32_t& r) const {
    q = quotient(n);
    r = n - q * divisor_;
  }

 private:
  uint32_t divisor_ = 1;
  uint32_t multiplier_ = 1;
  uint32_t first_shift_ = 0;
  uint32_t second_shift_ = 0;
};

__host__ __device__ __forceinline__ uint32_t operator/(uint32_t n, const uint_fastdiv& d) {
  return d.quotient(n);
}
__host__ __device__ __forceinline__ uint32_t operator%(uint32_t n, const uint_fastdiv& d) {
  uint32_t q, r;
  d.divmod(n, q, r);
  return r;
}

}  // namespace flashinfer

#endif  // FLASHINFER_FASTDIV_CUH_
