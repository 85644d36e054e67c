// Comes before any header of FlashInfer: its dispatch macros, with only the cases that occur here
// (bf16, head sizes 64 and 128, Hopper), which cuts the time to compile by more than half. They
// change what FlashInfer's inline functions are: all files that include FlashInfer include this.
#ifndef MNEME_KERNELS_CUDA_FLASHINFER_SHIMS_TRIMMED_CUH_
#define MNEME_KERNELS_CUDA_FLASHINFER_SHIMS_TRIMMED_CUH_

#include "kernels/cuda/flashinfer_shims/fastdiv.cuh"

#include <flashinfer/utils.cuh>

#undef DISPATCH_HEAD_DIM
#define DISPATCH_HEAD_DIM(head_dim, HEAD_DIM, ...) \
  switch (head_dim) {                              \
    case 64: {                                     \
      constexpr size_t HEAD_DIM = 64;              \
      __VA_ARGS__                                  \
      break;                                       \
    }                                              \
    case 128: {                                    \
      constexpr size_t HEAD_DIM = 128;             \
      __VA_ARGS__                                  \
      break;                                       \
    }                                              \
    default:                                       \
      FLASHINFER_ERROR("unsupported head size");   \
  }

// What the run-time choice comes to on a multiprocessor with 228 KB of shared memory.
#undef DISPATCH_NUM_MMA_KV
#define DISPATCH_NUM_MMA_KV(max_mma_kv, NUM_MMA_KV, ...)                  \
  {                                                                       \
    constexpr size_t NUM_MMA_KV = CTA_TILE_Q == 128  ? 4                  \
                                  : CTA_TILE_Q == 64 ? 8                  \
                                                     : 256 / HEAD_DIM_VO; \
    if (max_mma_kv < NUM_MMA_KV) {                                        \
      FLASHINFER_ERROR("this device has too little shared memory");       \
    }                                                                     \
    __VA_ARGS__                                                           \
  }

#endif  // MNEME_KERNELS_CUDA_FLASHINFER_SHIMS_TRIMMED_CUH_
