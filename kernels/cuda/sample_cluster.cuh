#ifndef MNEME_KERNELS_CUDA_SAMPLE_CLUSTER_CUH_
#define MNEME_KERNELS_CUDA_SAMPLE_CLUSTER_CUH_

// A cluster of thread blocks that works on one row of logits: block by block and thread by thread
// in the order of the token ids. Everything is called by all threads of all blocks.

#include <cooperative_groups.h>

#include <cstdint>

namespace mneme::cuda {

inline constexpr int kClusterBlocks = 8;
inline constexpr int kSampleThreads = 512;

// The sum over the threads before this one, and over all.
struct Prefix {
  uint64_t before;
  uint64_t total;
};

class RowCluster {
 public:
  struct Shared {
    uint64_t warps[kSampleThreads / 32];
    uint64_t exchanged[2];
  };

  __device__ explicit RowCluster(Shared* shared)
      : shared_(shared), rank_(static_cast<int>(Cluster().block_rank())) {}

  __device__ int rank() const { return rank_; }
  // Waits for all threads of the cluster; what they wrote to shared memory is then visible.
  __device__ void Sync() const { Cluster().sync(); }
  // The block `rank`'s counterpart of an address in shared memory.
  template <typename T>
  __device__ T* At(int rank, T* local) const {
    return Cluster().map_shared_rank(local, static_cast<unsigned>(rank));
  }

  __device__ Prefix BlockScan(uint64_t x) {
    uint64_t inclusive = x;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
      const uint64_t other = __shfl_up_sync(~0u, inclusive, offset);
      if (Lane() >= offset) inclusive += other;
    }
    __syncthreads();  // the array's last readers
    if (Lane() == 31) shared_->warps[Warp()] = inclusive;
    __syncthreads();
    const uint64_t sum = shared_->warps[Lane() % kWarps];
    const uint64_t warps_before = SumOf<kWarps>(Lane() % kWarps < Warp() ? sum : 0);
    return {warps_before + inclusive - x, SumOf<kWarps>(sum)};
  }

  __device__ Prefix Scan(uint64_t x) {
    const Prefix block = BlockScan(x);
    const uint64_t sum = Exchange(block.total);
    const uint64_t blocks_before = SumOf<kClusterBlocks>(Lane() % kClusterBlocks < rank_ ? sum : 0);
    return {blocks_before + block.before, SumOf<kClusterBlocks>(sum)};
  }

  __device__ uint64_t Max(uint64_t x) {
    x = MaxOf<32>(x);
    __syncthreads();  // the array's last readers
    if (Lane() == 0) shared_->warps[Warp()] = x;
    __syncthreads();
    x = MaxOf<kWarps>(shared_->warps[Lane() % kWarps]);
    return MaxOf<kClusterBlocks>(Exchange(x));
  }

 private:
  static constexpr int kWarps = kSampleThreads / 32;

  static __device__ int Lane() { return static_cast<int>(threadIdx.x % 32); }
  static __device__ int Warp() { return static_cast<int>(threadIdx.x / 32); }
  static __device__ cooperative_groups::cluster_group Cluster() {
    return cooperative_groups::this_cluster();
  }

  // Over kCount neighbouring lanes, a power of two.
  template <int kCount>
  static __device__ uint64_t SumOf(uint64_t x) {
#pragma unroll
    for (int offset = kCount / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(~0u, x, offset);
    return x;
  }
  template <int kCount>
  static __device__ uint64_t MaxOf(uint64_t x) {
#pragma unroll
    for (int offset = kCount / 2; offset > 0; offset /= 2) {
      x = max(x, uint64_t{__shfl_xor_sync(~0u, x, offset)});
    }
    return x;
  }

  // Gives lane i what the first thread of block i % kClusterBlocks passed. Of the two slots, one
  // may still be read by slower blocks while the next exchange writes the other.
  __device__ uint64_t Exchange(uint64_t mine) {
    uint64_t* const slot = &shared_->exchanged[turn_];
    turn_ ^= 1;
    if (threadIdx.x == 0) *slot = mine;
    Sync();
    return *At(Lane() % kClusterBlocks, slot);
  }

  Shared* shared_;
  int rank_;
  int turn_ = 0;
};

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_SAMPLE_CLUSTER_CUH_
