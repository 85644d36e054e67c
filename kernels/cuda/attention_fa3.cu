// FlashInfer's FA3 kernels: a block of three warp groups takes tiles of 128 rows (192 at head size
// 64) of one query head after another; bound by the tensor cores.

#include "kernels/cuda/flashinfer_shims/trimmed.cuh"

#include "kernels/cuda/flashinfer_shims/cutlass_utils.cuh"

#include <flashinfer_mended/epilogue.cuh>

#include <algorithm>
#include <flashinfer/attention/hopper/prefill_sm90.cuh>
#include <flashinfer/attention/hopper/variants.cuh>
#include <flashinfer/attention/scheduler.cuh>
#include <vector>

#include "kernels/cuda/attention_flashinfer.h"

namespace mneme::cuda {
namespace {

using BFloat16 = cutlass::bfloat16_t;

// What the kernel templates read; the names are theirs.
struct Fa3Params {
  using DTypeQ = BFloat16;
  using DTypeKV = BFloat16;
  using DTypeO = BFloat16;
  using IdType = int32_t;
  struct AdditionalParams {
    float sm_scale;
  };

  DTypeQ* q_ptr = nullptr;
  DTypeKV* k_ptr = nullptr;
  DTypeKV* v_ptr = nullptr;
  DTypeO* o_ptr = nullptr;
  float* lse_ptr = nullptr;
  IdType* qo_tile_indices = nullptr;
  IdType* qo_indptr = nullptr;
  IdType* kv_indptr = nullptr;
  IdType* kv_indices = nullptr;
  IdType* qo_lens = nullptr;
  IdType* kv_lens = nullptr;
  IdType* head_indices = nullptr;
  IdType* work_indptr = nullptr;
  IdType* batch_indices = nullptr;
  AdditionalParams additional_params{};
  int64_t q_stride_n = 0, k_stride_n = 0, v_stride_n = 0, o_stride_n = 0;
  int64_t q_stride_h = 0, k_stride_h = 0, v_stride_h = 0, o_stride_h = 0;
  int64_t nnz_qo = 0;
  int64_t k_page_stride = 0, v_page_stride = 0;
  int num_qo_heads = 0;
  int num_kv_heads = 0;
  int group_size = 0;
  int page_size = 0;
  int window_left = -1;
  bool causal = true;
};

// Beyond so many tiles of a head the planner makes schedules for a kernel that is not built here.
constexpr int64_t kMaxTilesOfHead = 4096;

int64_t TileRows(const FlashCall& call) { return call.shape.heads.head_dim == 64 ? 192 : 128; }

// The planner's bound on a head's tiles.
int64_t MaxTilesOfHead(const FlashCall& call) {
  return (call.rows + TileRows(call) - 1) / TileRows(call) + call.sequences - 1;
}

template <typename T>
T* Part(void* base, int64_t offset_bytes) {
  return reinterpret_cast<T*>(static_cast<char*>(base) + offset_bytes);
}

template <uint32_t kHeadDim, bool kWindow>
cudaError_t LaunchHead(Fa3Params& params, cudaStream_t stream) {
  return flashinfer::BatchPrefillWithPagedKVCacheDispatched<
      kHeadDim, kHeadDim, flashinfer::MaskMode::kCausal, kWindow,
      /*SAME_SCHEDULE_FOR_ALL_HEADS=*/false, flashinfer::StandardAttention, Fa3Params>(
      params, /*enable_pdl=*/false, stream);
}

Fa3Params ParamsOf(const FlashCall& call, const Matrix& qkv, const void* kv_data,
                   const Matrix& out) {
  const QkvShape& heads = call.shape.heads;
  const KvLayer& kv = call.shape.kv;
  Fa3Params params;
  params.q_ptr = static_cast<BFloat16*>(qkv.data);
  params.k_ptr = static_cast<BFloat16*>(const_cast<void*>(kv_data));
  params.v_ptr = params.k_ptr + kv.page_tokens * heads.kv_heads * heads.head_dim;
  params.o_ptr = static_cast<BFloat16*>(out.data);
  params.kv_indices = Mutable(call.device.pages);
  params.additional_params.sm_scale = call.shape.scale;
  params.q_stride_n = qkv.stride;
  params.o_stride_n = out.stride;
  params.k_stride_n = params.v_stride_n = heads.kv_heads * heads.head_dim;
  params.q_stride_h = params.k_stride_h = params.v_stride_h = params.o_stride_h = heads.head_dim;
  params.nnz_qo = call.first_row + call.rows;
  params.k_page_stride = params.v_page_stride = kv.page_stride_bytes / int64_t{sizeof(BFloat16)};
  params.num_qo_heads = static_cast<int>(heads.query_heads);
  params.num_kv_heads = static_cast<int>(heads.kv_heads);
  params.group_size = static_cast<int>(heads.query_heads / heads.kv_heads);
  params.page_size = static_cast<int>(kv.page_tokens);
  params.window_left = call.shape.window > 0 ? static_cast<int>(call.shape.window - 1) : -1;
  return params;
}

}  // namespace

bool PrefersFa3(const FlashCall& call, const LaunchContext& context) {
  constexpr int64_t kShortContext = 2048;
  int64_t tiles = 0, longest = 0;
  for (int64_t i = 0; i < call.sequences; ++i) {
    const int64_t rows = call.host.q_indptr[i + 1] - call.host.q_indptr[i];
    tiles += (rows + TileRows(call) - 1) / TileRows(call);
    longest = std::max<int64_t>(longest, call.host.kv_length[i]);
  }
  const bool fills = 2 * call.shape.heads.query_heads * tiles >= context.num_sms;
  return (fills || longest <= kShortContext) && MaxTilesOfHead(call) <= kMaxTilesOfHead;
}

FlashPlanBytes Fa3PlanBytes(const FlashCall& call, const LaunchContext& context) {
  constexpr int64_t kArrays = 8, kAlignment = 16;
  const int64_t works = call.shape.heads.query_heads * MaxTilesOfHead(call);
  const int64_t integers = (kArrays - 1) * works + context.num_sms + 1;
  return {integers * int64_t{sizeof(int32_t)} + kArrays * kAlignment, 0};
}

void Fa3Plan(const FlashCall& call, const FlashPlanBytes& bytes, void* staging, FlashPlan* plan,
             const LaunchContext& context) {
  const QkvShape& heads = call.shape.heads;
  const auto head_dim = static_cast<uint32_t>(heads.head_dim);
  Guarded("planning attention", context, [&] {
    flashinfer::PrefillPlanSM90Info info;
    const cudaError_t error = flashinfer::PrefillSM90Plan<int32_t>(
        /*float_buffer=*/nullptr, 0, plan->schedule, staging, static_cast<size_t>(bytes.schedule),
        info, Mutable(call.host.q_indptr), Mutable(call.host.page_indptr),
        Mutable(call.host.kv_length), static_cast<uint32_t>(call.rows),
        static_cast<uint32_t>(call.sequences), static_cast<uint32_t>(heads.query_heads),
        static_cast<uint32_t>(heads.kv_heads), head_dim, head_dim,
        static_cast<uint32_t>(call.shape.kv.page_tokens), /*causal=*/true,
        /*enable_cuda_graph=*/false, static_cast<uint32_t>(sizeof(BFloat16)), context.stream);
    const std::vector<int64_t> layout = info.ToVector();
    std::copy(layout.begin(), layout.end(), plan->layout.begin());
    return error;
  });
}

void Fa3Run(const FlashCall& call, const FlashPlan& plan, Matrix qkv, const void* kv_data,
            Matrix out, const LaunchContext& context) {
  Guarded("attention (FA3)", context, [&] {
    flashinfer::PrefillPlanSM90Info info;
    info.FromVector(std::vector<int64_t>(plan.layout.begin(), plan.layout.begin() + 9));
    Fa3Params params = ParamsOf(call, qkv, kv_data, out);
    void* const schedule = plan.schedule;
    params.qo_tile_indices = Part<int32_t>(schedule, info.qo_tile_indices_offset);
    params.qo_indptr = Part<int32_t>(schedule, info.qo_indptr_offset);
    params.kv_indptr = Part<int32_t>(schedule, info.kv_indptr_offset);
    params.qo_lens = Part<int32_t>(schedule, info.qo_len_offset);
    params.kv_lens = Part<int32_t>(schedule, info.kv_len_offset);
    params.head_indices = Part<int32_t>(schedule, info.head_indices_offset);
    params.work_indptr = Part<int32_t>(schedule, info.work_indptr_offset);
    params.batch_indices = Part<int32_t>(schedule, info.batch_indices_offset);
    const bool window = call.shape.window > 0;
    if (call.shape.heads.head_dim == 64) {
      return window ? LaunchHead<64, true>(params, context.stream)
                    : LaunchHead<64, false>(params, context.stream);
    }
    return window ? LaunchHead<128, true>(params, context.stream)
                  : LaunchHead<128, false>(params, context.stream);
  });
}

}  // namespace mneme::cuda
