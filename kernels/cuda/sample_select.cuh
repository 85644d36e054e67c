#ifndef MNEME_KERNELS_CUDA_SAMPLE_SELECT_CUH_
#define MNEME_KERNELS_CUDA_SAMPLE_SELECT_CUH_

// Finding tokens of a row by what they add up to: in the order of their ids, and in the order of
// their logits (equal ones by lower id), which is done by a radix search instead of sorting. A
// measure gives each token a number; numbers are integers, so that sums are exact and the same in
// any order. Everything is called by all threads of the cluster.

#include <cstdint>

#include "kernels/cuda/sample_cluster.cuh"

namespace mneme::cuda {

// Orders as the logits do: neither NaN nor −0 is among them.
__device__ __forceinline__ uint32_t KeyOf(float logit) {
  const uint32_t bits = __float_as_uint(logit);
  return bits ^ (bits >> 31 != 0 ? 0xffffffffu : 0x80000000u);
}
__device__ __forceinline__ float LogitOf(uint32_t key) {
  return __uint_as_float(key ^ (key >> 31 != 0 ? 0x80000000u : 0xffffffffu));
}
inline constexpr uint32_t kImpossibleKey = 0x007fffff;  // of −∞

// One number that orders tokens by logit, equal ones by lower id.
__device__ __forceinline__ uint64_t RankOf(float logit, int32_t id) {
  return uint64_t{KeyOf(logit)} << 32 | ~static_cast<uint32_t>(id);
}
__device__ __forceinline__ uint32_t KeyOfRank(uint64_t rank) {
  return static_cast<uint32_t>(rank >> 32);
}
__device__ __forceinline__ int32_t IdOfRank(uint64_t rank) {
  return static_cast<int32_t>(~static_cast<uint32_t>(rank));
}

// The tokens from the first rank to one; as made here, all of finite logit.
struct Cut {
  uint32_t last_key = kImpossibleKey;
  int32_t last_id = -1;  // among the tokens of last_key

  __device__ bool Keeps(float logit, int32_t id) const {
    const uint32_t key = KeyOf(logit);
    return key > last_key || (key == last_key && id <= last_id);
  }
};

// A block's share of the row, in shared memory. Each thread has an odd number of neighbouring
// logits, so that a warp's accesses fall into different banks.
struct RowSlice {
  float* logits;
  int32_t first_id;
  int count;
  int begin, end;  // of this thread's logits

  __device__ RowSlice(float* shared_logits, int rank, int slice_size, int vocab_size)
      : logits(shared_logits), first_id(rank * slice_size) {
    count = min(max(vocab_size - first_id, 0), slice_size);
    const int share = ((slice_size + kSampleThreads - 1) / kSampleThreads) | 1;
    begin = min(static_cast<int>(threadIdx.x) * share, count);
    end = min(begin + share, count);
  }

  // Calls visit(logit, id) for this thread's tokens in order.
  template <typename Visit>
  __device__ void ForEach(const Visit& visit) const {
#pragma unroll 2  // more would cost registers
    for (int i = begin; i < end; ++i) visit(logits[i], first_id + i);
  }
};

// Sums by digit of the key, of one block.
struct Histogram {
  static constexpr int kBits = 11;
  static constexpr int kBins = 1 << kBits;
  static constexpr int kOwnBins = kBins / kClusterBlocks;
  static constexpr int kBinsPerThread = kBins / kSampleThreads;

  // Of the block's own tokens: low and high half, as shared memory adds 32 bits at a time.
  uint2 bins[kBins];
  uint64_t sums[kOwnBins];  // over the cluster, of the bins from rank · kOwnBins on
  int found_bin;
  uint64_t found_before;

  __device__ void Clear() {
    for (int i = threadIdx.x; i < kBins; i += kSampleThreads) bins[i] = {0, 0};
    __syncthreads();
  }
  __device__ void Add(uint32_t bin, uint64_t x) {
    const uint32_t low = static_cast<uint32_t>(x);
    const uint32_t old = atomicAdd(&bins[bin].x, low);
    const uint32_t high = static_cast<uint32_t>(x >> 32) + (old + low < low ? 1 : 0);
    if (high != 0) atomicAdd(&bins[bin].y, high);
  }
};

// Makes all blocks' `sums` from what each has added.
__device__ inline void MergeHistograms(const RowCluster& cluster, Histogram* histogram) {
  cluster.Sync();
  if (threadIdx.x < Histogram::kOwnBins) {
    const int bin = cluster.rank() * Histogram::kOwnBins + static_cast<int>(threadIdx.x);
    uint64_t sum = 0;
#pragma unroll 4
    for (int rank = 0; rank < kClusterBlocks; ++rank) {
      const uint2 halves = *cluster.At(rank, &histogram->bins[bin]);
      sum += uint64_t{halves.y} << 32 | halves.x;
    }
    histogram->sums[threadIdx.x] = sum;
  }
  cluster.Sync();
}

// The id of the first token, in the order of ids, at which the measure's running sum reaches
// goal_of(total), which lies in [1, total].
template <typename Measure, typename GoalOf>
__device__ int32_t Locate(RowCluster& cluster, const RowSlice& slice, const Measure& measure,
                          const GoalOf& goal_of) {
  uint64_t mine = 0;
  slice.ForEach([&](float logit, int32_t id) { mine += measure(logit, id); });
  const Prefix prefix = cluster.Scan(mine);
  const uint64_t goal = goal_of(prefix.total);
  uint64_t found = 0;  // id + 1
  if (prefix.before < goal && goal <= prefix.before + mine) {
    uint64_t sum = prefix.before;
    slice.ForEach([&](float logit, int32_t id) {
      sum += measure(logit, id);
      if (found == 0 && sum >= goal) found = static_cast<uint64_t>(id) + 1;
    });
  }
  return static_cast<int32_t>(cluster.Max(found)) - 1;
}

// The shortest cut whose tokens' measure reaches goal_of(total) ≥ 1; `all` if even the total does
// not. Three digits of the key are found one after another, from the highest.
template <typename Measure, typename GoalOf>
__device__ Cut FindCut(RowCluster& cluster, const RowSlice& slice, Histogram* histogram,
                       const Measure& measure, const GoalOf& goal_of, const Cut& all) {
  uint32_t key = 0, known = 0;  // the digits found so far, and where in the key they stand
  uint64_t before = 0;          // the measure of higher keys
  uint64_t goal = 0;
#pragma unroll 1
  for (int digit = 0; digit < 3; ++digit) {
    // The last digit overlaps the one before by a bit.
    const int shift = digit == 0 ? 21 : digit == 1 ? 10 : 0;
    histogram->Clear();
    slice.ForEach([&](float logit, int32_t id) {
      const uint32_t k = KeyOf(logit);
      if ((k & known) != key) return;
      const uint64_t x = measure(logit, id);
      if (x != 0) histogram->Add(k >> shift & (Histogram::kBins - 1), x);
    });
    MergeHistograms(cluster, histogram);

    // From the highest bin down, some neighbouring bins a thread, which lie in one block.
    constexpr int kMyBins = Histogram::kBinsPerThread;
    const int lowest_bin = Histogram::kBins - kMyBins * (static_cast<int>(threadIdx.x) + 1);
    const uint64_t* const merged = cluster.At(lowest_bin / Histogram::kOwnBins,
                                              &histogram->sums[lowest_bin % Histogram::kOwnBins]);
    uint64_t sums[kMyBins];
    uint64_t mine = 0;
#pragma unroll
    for (int i = 0; i < kMyBins; ++i) {
      sums[i] = merged[i];
      mine += sums[i];
    }
    const Prefix prefix = cluster.BlockScan(mine);
    if (digit == 0) {
      goal = goal_of(prefix.total);
      if (goal > prefix.total) return all;
    }
    uint64_t sum = before + prefix.before;
#pragma unroll
    for (int i = kMyBins - 1; i >= 0; --i) {
      if (sum < goal && goal <= sum + sums[i]) {
        histogram->found_bin = lowest_bin + i;
        histogram->found_before = sum;
      }
      sum += sums[i];
    }
    __syncthreads();
    key |= static_cast<uint32_t>(histogram->found_bin) << shift;
    known = ~0u << shift;
    before = histogram->found_before;
  }
  const int32_t last_id = Locate(
      cluster, slice,
      [&](float logit, int32_t id) { return KeyOf(logit) == key ? measure(logit, id) : 0; },
      [&](uint64_t) { return goal - before; });
  return {key, last_id};
}

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_SAMPLE_SELECT_CUH_
