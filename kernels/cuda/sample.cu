#include "kernels/cuda/sample.h"

#include <cuda_pipeline.h>

#include "kernels/cuda/row_view.cuh"
#include "kernels/cuda/sample_select.cuh"

namespace mneme::cuda {
namespace {

constexpr float kInfinity = __builtin_huge_valf();
constexpr float kLargest = 3.402823466e38f;

struct Shared {
  RowCluster::Shared cluster;
  Histogram histogram;
  // In the cluster's first block: the ranks of the most probable tokens by raw logits, unordered.
  uint64_t top[kMaxTopLogProbs];
  int num_top;
  int finite;        // whether any raw logit is
  double log_total;  // ln Σ exp of the raw logits
};

// −∞ or finite, and not −0.
__device__ __forceinline__ float Cleaned(float logit) {
  return fminf(fmaxf(logit, -kInfinity), kLargest) + 0.0f;
}

// e^((logit − highest) / temperature), which is 1 for the highest logit.
struct Weigher {
  float highest, temperature;

  __device__ float operator()(float logit) const { return expf((logit - highest) / temperature); }
};

// Weights are added up in units of 2⁻⁴⁴: exact, and below 2⁶⁴ for 2²⁰ tokens.
__device__ __forceinline__ uint64_t Units(float weight) { return __float2ull_rn(weight * 0x1p44f); }

// Measures each token of finite logit as one.
__device__ __forceinline__ uint64_t CountPossible(float logit, int32_t) {
  return logit > -kInfinity ? 1 : 0;
}

// --- The raw logits. ---

// Brings the block's slice of `row` to shared memory, kBytes a copy.
template <int kBytes>
__device__ void Fetch(const float* row, const RowSlice& slice) {
  constexpr int kCount = kBytes / sizeof(float);
  const float* const from = row + slice.first_id;
  for (int i = static_cast<int>(threadIdx.x) * kCount; i < slice.count;
       i += kSampleThreads * kCount) {
    __pipeline_memcpy_async(slice.logits + i, from + i, kBytes);
  }
  __pipeline_commit();
  __pipeline_wait_prior(0);
  __syncthreads();
}

// Cleans the logits; whether any was finite.
__device__ bool Clean(RowCluster& cluster, const RowSlice& slice) {
  uint64_t finite = 0;
  for (int i = slice.begin; i < slice.end; ++i) {
    const float logit = slice.logits[i];
    if (fabsf(logit) <= kLargest) finite = 1;
    slice.logits[i] = Cleaned(logit);
  }
  return cluster.Max(finite) != 0;
}

// The rank of the highest logit.
__device__ uint64_t Highest(RowCluster& cluster, const RowSlice& slice) {
  uint64_t highest = 0;
  slice.ForEach([&](float logit, int32_t id) { highest = max(highest, RankOf(logit, id)); });
  return cluster.Max(highest);
}

// ln Σ exp(logit); NaN if there is no token.
__device__ double LogTotal(RowCluster& cluster, const RowSlice& slice) {
  const uint32_t highest_key = KeyOfRank(Highest(cluster, slice));
  if (highest_key <= kImpossibleKey) return __longlong_as_double(0x7ff8000000000000);
  const Weigher weigh = {LogitOf(highest_key), 1};
  uint64_t sum = 0;
  slice.ForEach([&](float logit, int32_t) { sum += Units(weigh(logit)); });
  return weigh.highest + log(static_cast<double>(cluster.Scan(sum).total) * 0x1p-44);
}

// Fills `top` and `num_top` of the first block; to be read after the next Sync.
__device__ void CollectTop(RowCluster& cluster, const RowSlice& slice, Shared* shared, int count) {
  if (count <= 0) return;
  const uint64_t goal = min(count, kMaxTopLogProbs);
  const Cut cut = FindCut(
      cluster, slice, &shared->histogram, CountPossible, [&](uint64_t) { return goal; }, Cut());
  slice.ForEach([&](float logit, int32_t id) {
    if (!cut.Keeps(logit, id)) return;
    const int place = atomicAdd(cluster.At(0, &shared->num_top), 1);
    *cluster.At(0, &shared->top[place]) = RankOf(logit, id);
  });
}

// --- Penalties, bias, forbidden tokens. ---

// Calls change(logit, index) for the entries [begin, end) of a list of ids that lie in the slice.
template <typename Change>
__device__ void ForListed(const RowSlice& slice, const int32_t* ids, int begin, int end,
                          const Change& change) {
  for (int i = begin + static_cast<int>(threadIdx.x); i < end; i += kSampleThreads) {
    const int at = ids[i] - slice.first_id;
    if (at >= 0 && at < slice.count) change(slice.logits[at], i);
  }
  __syncthreads();
}

// The products and sums are rounded one by one, as the host's are.
__device__ __forceinline__ float Penalized(float logit, const SampleView& view, int row,
                                           int count) {
  const float repetition = view.repetition_penalty[row];
  logit = logit > 0 ? logit / repetition : logit * repetition;
  const float frequency = __fmul_rn(view.frequency_penalty[row], static_cast<float>(count));
  return Cleaned(__fsub_rn(logit, __fadd_rn(view.presence_penalty[row], frequency)));
}

// A thread changes a logit at most once between two barriers: no id is listed twice in a list.
__device__ void Adjust(const RowSlice& slice, const SampleView& view, int row) {
  __syncthreads();
  ForListed(slice, view.count_ids, view.count_indptr[row], view.count_indptr[row + 1],
            [&](float& logit, int i) { logit = Penalized(logit, view, row, view.counts[i]); });
  ForListed(slice, view.bias_ids, view.bias_indptr[row], view.bias_indptr[row + 1],
            [&](float& logit, int i) { logit = Cleaned(logit + view.biases[i]); });
  ForListed(slice, view.forbidden_ids, view.forbidden_indptr[row], view.forbidden_indptr[row + 1],
            [&](float& logit, int) { logit = -kInfinity; });
}

// The lowest id that is not forbidden, 0 if all are. By a whole block.
__device__ int32_t LowestAllowed(const SampleView& view, int row, int vocab_size) {
  for (int32_t id = 0; id < vocab_size; ++id) {
    int listed = 0;
    for (int i = view.forbidden_indptr[row] + static_cast<int>(threadIdx.x);
         i < view.forbidden_indptr[row + 1]; i += kSampleThreads) {
      if (view.forbidden_ids[i] == id) listed = 1;
    }
    if (__syncthreads_or(listed) == 0) return id;
  }
  return 0;
}

// --- The draw. ---

__device__ int32_t Draw(RowCluster& cluster, const RowSlice& slice, Histogram* histogram,
                        const SampleView& view, int row, float highest) {
  Cut cut;
  if (const int32_t top_k = view.top_k[row]; top_k > 0) {
    cut = FindCut(
        cluster, slice, histogram, CountPossible,
        [&](uint64_t) { return static_cast<uint64_t>(top_k); }, cut);
  }
  const Weigher weigh = {highest, view.temperature[row]};
  if (const float top_p = view.top_p[row]; top_p < 1) {
    const Cut ranked = cut;
    cut = FindCut(
        cluster, slice, histogram,
        [&](float logit, int32_t id) { return ranked.Keeps(logit, id) ? Units(weigh(logit)) : 0; },
        [&](uint64_t total) {
          const double share = ceil(static_cast<double>(top_p) * static_cast<double>(total));
          return min(max(static_cast<uint64_t>(share), uint64_t{1}), total);
        },
        ranked);
  }
  const float min_p = view.min_p[row];
  const double uniform = view.uniform[row];
  return Locate(
      cluster, slice,
      [&](float logit, int32_t id) -> uint64_t {
        if (!cut.Keeps(logit, id)) return 0;
        const float weight = weigh(logit);
        return weight >= min_p ? Units(weight) : 0;
      },
      [&](uint64_t total) {
        return min(static_cast<uint64_t>(uniform * static_cast<double>(total)), total - 1) + 1;
      });
}

// Writes what was drawn; by the first block. `row`: the raw logits.
__device__ void Write(const Shared& shared, const float* row, int32_t id, bool with_logprobs,
                      SampledRow* out) {
  const auto logprob = [&](float logit) { return static_cast<float>(logit - shared.log_total); };
  const int i = static_cast<int>(threadIdx.x);
  if (i == 0) {
    out->id = id;
    out->finite = shared.finite;
    out->logprob = with_logprobs ? logprob(Cleaned(row[id])) : 0;
    out->num_top = shared.num_top;
  }
  if (i >= kMaxTopLogProbs) return;
  if (i >= shared.num_top) {
    out->top[i] = {};
    return;
  }
  const uint64_t rank = shared.top[i];
  int place = 0;
  for (int j = 0; j < shared.num_top; ++j) place += shared.top[j] > rank ? 1 : 0;
  out->top[place] = {IdOfRank(rank), logprob(LogitOf(KeyOfRank(rank)))};
}

// A row a cluster: each block keeps its slice of the logits in shared memory, so that device memory
// is read once, by which a greedy draw is bound; top_k and top_p take three passes over shared
// memory each, bound by its additions.
__global__ void __cluster_dims__(kClusterBlocks, 1, 1) __launch_bounds__(kSampleThreads, 2)
    SampleKernel(const StepView* step, RowView<const float> logits, int vocab_size, int slice_size,
                 bool vectors, SampledRow* out) {
  extern __shared__ __align__(16) float slice_logits[];
  __shared__ Shared shared;
  LetNextStart();
  WaitForPrior();
  const SampleView& view = step->samples;
  const int row = static_cast<int>(blockIdx.x) / kClusterBlocks;
  if (row >= view.num_samples) return;

  if (threadIdx.x == 0) shared.num_top = 0;
  RowCluster cluster(&shared.cluster);
  const RowSlice slice(slice_logits, cluster.rank(), slice_size, vocab_size);
  if (vectors) {
    Fetch<16>(logits[row], slice);
  } else {
    Fetch<4>(logits[row], slice);
  }
  const bool finite = Clean(cluster, slice);
  if (threadIdx.x == 0) shared.finite = finite ? 1 : 0;
  const int top_logprobs = view.top_logprobs[row];
  if (top_logprobs >= 0) {
    const double log_total = LogTotal(cluster, slice);
    if (threadIdx.x == 0) shared.log_total = log_total;
    CollectTop(cluster, slice, &shared, top_logprobs);
  }

  Adjust(slice, view, row);
  const uint64_t highest = Highest(cluster, slice);
  int32_t id = IdOfRank(highest);
  if (KeyOfRank(highest) <= kImpossibleKey) {
    id = LowestAllowed(view, row, vocab_size);
  } else if (view.temperature[row] != 0) {
    id = Draw(cluster, slice, &shared.histogram, view, row, LogitOf(KeyOfRank(highest)));
  }
  if (cluster.rank() == 0) {
    Write(shared, logits[row], id, view.top_logprobs[row] >= 0, &out[row]);
  }
  cluster.Sync();  // no block ends while another reads its shared memory
}

}  // namespace

void SampleRows(const StepView* step, Matrix logits, SampledRow* out,
                const LaunchContext& context) {
  if (logits.cols > kMaxSampledVocab) {
    return context.errors->Fail("sampling takes vocabularies of up to 400000 tokens");
  }
  constexpr int kVector = 4;  // logits of one access
  const int64_t slice_size = CeilDiv(logits.cols, kClusterBlocks * kVector) * kVector;
  constexpr int64_t kMaxBytes = kMaxSampledVocab / kClusterBlocks * sizeof(float);
  context.errors->Check(
      cudaFuncSetAttribute(SampleKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kMaxBytes),
      "SampleRows");
  Launch(context, "SampleRows", SampleKernel,
         dim3(static_cast<unsigned>(logits.rows * kClusterBlocks)), dim3(kSampleThreads),
         static_cast<size_t>(slice_size) * sizeof(float), step, ViewOf<const float>(logits),
         static_cast<int>(logits.cols), static_cast<int>(slice_size),
         IsVectors(logits, logits.cols), out);
}

}  // namespace mneme::cuda
