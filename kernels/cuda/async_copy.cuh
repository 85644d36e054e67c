#ifndef MNEME_KERNELS_CUDA_ASYNC_COPY_CUH_
#define MNEME_KERNELS_CUDA_ASYNC_COPY_CUH_

// Bulk copies from global to shared memory that complete on barriers in shared memory (mbarrier).

#include <cstdint>

#include "kernels/cuda/mma.cuh"

namespace mneme::cuda {

// A phase ends when `arrivals` threads have arrived and the bytes they announced are there.
__device__ __forceinline__ void InitBarrier(uint64_t* barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(SharedAddress(barrier)),
               "r"(arrivals)
               : "memory");
}
// After the inits, before any thread or copy uses the barriers (and before a __syncthreads).
__device__ __forceinline__ void FenceBarrierInit() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ __forceinline__ void Arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(SharedAddress(barrier)) : "memory");
}
__device__ __forceinline__ void ArriveExpecting(uint64_t* barrier, uint32_t bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(SharedAddress(barrier)),
      "r"(bytes)
      : "memory");
}
// Waits until the phase of this parity has ended; parity 1 passes on a fresh barrier.
__device__ __forceinline__ void WaitParity(uint64_t* barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(SharedAddress(barrier)),
      "r"(parity)
      : "memory");
}

// Addresses and bytes are multiples of 16. The data is read once: it is the first to leave the L2.
__device__ __forceinline__ void CopyOnce(void* shared, const void* global, uint32_t bytes,
                                         uint64_t* barrier) {
  constexpr uint64_t kEvictFirst = 0x12F0000000000000;
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint"
      " [%0], [%1], %2, [%3], %4;" ::"r"(SharedAddress(shared)),
      "l"(__cvta_generic_to_global(global)), "r"(bytes), "r"(SharedAddress(barrier)),
      "l"(kEvictFirst)
      : "memory");
}

// A place in a ring of stages, and how often the ring has been gone round.
struct RingCursor {
  int stage = 0;
  uint32_t parity = 0;

  __device__ __forceinline__ void Advance(int stages) {
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_ASYNC_COPY_CUH_
