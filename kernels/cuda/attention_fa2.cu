// FlashInfer's FA2 kernels: a block takes a tile of 16, 64 or 128 rows times query heads of one KV
// head, over a part of the context where that is needed to fill the device; a second kernel then
// merges the parts.

#include "kernels/cuda/flashinfer_shims/trimmed.cuh"

#include <cuda_bf16.h>

#include <algorithm>
#include <flashinfer/attention/prefill.cuh>
#include <flashinfer/attention/scheduler.cuh>
#include <flashinfer/attention/variants.cuh>
#include <vector>

#include "kernels/cuda/attention_flashinfer.h"

namespace mneme::cuda {
namespace {

using BFloat16 = __nv_bfloat16;

// What the kernel templates read; the names are theirs.
struct Fa2Params {
  using DTypeQ = BFloat16;
  using DTypeKV = BFloat16;
  using DTypeO = BFloat16;
  using IdType = int32_t;

  DTypeQ* q = nullptr;
  flashinfer::paged_kv_t<DTypeKV, IdType> paged_kv;
  IdType* q_indptr = nullptr;
  DTypeO* o = nullptr;
  float* lse = nullptr;
  flashinfer::uint_fastdiv group_size;
  float sm_scale = 0;
  uint32_t num_qo_heads = 0;
  IdType q_stride_n = 0;
  IdType q_stride_h = 0;
  uint32_t k_sf_stride_page = 0, k_sf_stride_n = 0, k_sf_stride_h = 0;
  uint32_t v_sf_stride_page = 0, v_sf_stride_n = 0, v_sf_stride_h = 0;
  int32_t window_left = -1;
  IdType* request_indices = nullptr;
  IdType* qo_tile_indices = nullptr;
  IdType* kv_tile_indices = nullptr;
  IdType* merge_indptr = nullptr;
  IdType* o_indptr = nullptr;
  bool* block_valid_mask = nullptr;
  IdType* kv_chunk_size_ptr = nullptr;
  uint32_t max_total_num_rows = 0;
  uint32_t* total_num_rows = nullptr;
  uint32_t padded_batch_size = 0;
  bool partition_kv = false;

  __host__ __device__ __forceinline__ uint32_t get_qo_len(uint32_t sequence) const {
    return static_cast<uint32_t>(q_indptr[sequence + 1] - q_indptr[sequence]);
  }
  __host__ __device__ __forceinline__ uint32_t get_kv_len(uint32_t sequence) const {
    return paged_kv.get_length(sequence);
  }
};

int32_t WindowLeft(const AttentionShape& shape) {
  return shape.window > 0 ? static_cast<int32_t>(shape.window - 1) : -1;
}

flashinfer::PrefillPlanInfo InfoOf(const FlashPlan& plan) {
  flashinfer::PrefillPlanInfo info;
  info.FromVector(std::vector<int64_t>(plan.layout.begin(), plan.layout.end()));
  return info;
}

template <typename T>
T* Part(void* base, int64_t offset_bytes) {
  return reinterpret_cast<T*>(static_cast<char*>(base) + offset_bytes);
}

template <uint32_t kTile, uint32_t kHeadDim, bool kWindow>
cudaError_t LaunchTile(const Fa2Params& params, BFloat16* values, float* scores,
                       cudaStream_t stream) {
  using Variant = flashinfer::DefaultAttention</*use_custom_mask=*/false, kWindow,
                                               /*use_logits_soft_cap=*/false, /*use_alibi=*/false>;
  return flashinfer::BatchPrefillWithPagedKVCacheDispatched<
      kTile, kHeadDim, kHeadDim, flashinfer::PosEncodingMode::kNone,
      /*USE_FP16_QK_REDUCTION=*/false, flashinfer::MaskMode::kCausal, Variant, Fa2Params>(
      params, values, scores, /*enable_pdl=*/true, stream);
}

template <uint32_t kHeadDim, bool kWindow>
cudaError_t LaunchHead(int64_t tile, const Fa2Params& params, BFloat16* values, float* scores,
                       cudaStream_t stream) {
  switch (tile) {
    case 16:
      return LaunchTile<16, kHeadDim, kWindow>(params, values, scores, stream);
    case 64:
      return LaunchTile<64, kHeadDim, kWindow>(params, values, scores, stream);
    case 128:
      return LaunchTile<128, kHeadDim, kWindow>(params, values, scores, stream);
    default:
      return cudaErrorNotSupported;
  }
}

cudaError_t LaunchAny(const AttentionShape& shape, int64_t tile, const Fa2Params& params,
                      BFloat16* values, float* scores, cudaStream_t stream) {
  const bool window = shape.window > 0;
  if (shape.heads.head_dim == 64) {
    return window ? LaunchHead<64, true>(tile, params, values, scores, stream)
                  : LaunchHead<64, false>(tile, params, values, scores, stream);
  }
  return window ? LaunchHead<128, true>(tile, params, values, scores, stream)
                : LaunchHead<128, false>(tile, params, values, scores, stream);
}

// Calls `plan` with the arguments that planning and measuring a plan have in common.
template <typename Plan>
cudaError_t WithPlanArguments(const FlashCall& call, cudaStream_t stream, Plan&& plan) {
  const QkvShape& heads = call.shape.heads;
  const auto head_dim = static_cast<uint32_t>(heads.head_dim);
  return plan(Mutable(call.host.q_indptr), Mutable(call.host.page_indptr),
              static_cast<uint32_t>(call.rows), static_cast<uint32_t>(call.sequences),
              static_cast<uint32_t>(heads.query_heads), static_cast<uint32_t>(heads.kv_heads),
              head_dim, head_dim, static_cast<uint32_t>(call.shape.kv.page_tokens),
              /*enable_cuda_graph=*/false, static_cast<uint32_t>(sizeof(BFloat16)),
              WindowLeft(call.shape),
              /*fixed_split_size=*/-1, /*disable_split_kv=*/false,
              /*num_colocated_ctas=*/int64_t{0}, /*uniform_q_len=*/int64_t{0}, stream,
              static_cast<uint32_t>(sizeof(BFloat16)));
}

Fa2Params ParamsOf(const FlashCall& call, const Matrix& qkv, const void* kv_data,
                   const Matrix& out) {
  const QkvShape& heads = call.shape.heads;
  const KvLayer& kv = call.shape.kv;
  const int64_t token_stride = heads.kv_heads * heads.head_dim;
  const int64_t strides[3] = {kv.page_stride_bytes / int64_t{sizeof(BFloat16)}, token_stride,
                              heads.head_dim};
  auto* const k = static_cast<BFloat16*>(const_cast<void*>(kv_data));
  Fa2Params params;
  params.q = static_cast<BFloat16*>(qkv.data);
  params.paged_kv = flashinfer::paged_kv_t<BFloat16, int32_t>(
      static_cast<uint32_t>(heads.kv_heads), static_cast<uint32_t>(kv.page_tokens),
      static_cast<uint32_t>(heads.head_dim), static_cast<uint32_t>(call.sequences),
      flashinfer::QKVLayout::kNHD, k, k + kv.page_tokens * token_stride, strides,
      Mutable(call.device.pages), Mutable(call.device.page_indptr),
      Mutable(call.device.last_page_len));
  params.q_indptr = Mutable(call.device.q_indptr);
  params.o = static_cast<BFloat16*>(out.Rows(call.first_row, call.rows).data);
  params.group_size =
      flashinfer::uint_fastdiv(static_cast<uint32_t>(heads.query_heads / heads.kv_heads));
  params.sm_scale = call.shape.scale;
  params.num_qo_heads = static_cast<uint32_t>(heads.query_heads);
  params.q_stride_n = static_cast<int32_t>(qkv.stride);
  params.q_stride_h = static_cast<int32_t>(heads.head_dim);
  params.window_left = WindowLeft(call.shape);
  return params;
}

}  // namespace

FlashPlanBytes Fa2PlanBytes(const FlashCall& call, const LaunchContext& context) {
  size_t schedule = 0, partials = 0;
  Guarded("measuring the attention plan", context, [&] {
    return WithPlanArguments(call, context.stream, [&](auto... arguments) {
      return flashinfer::PrefillPlanWorkspaceSize<int32_t>(partials, schedule, arguments...);
    });
  });
  return {static_cast<int64_t>(schedule), static_cast<int64_t>(partials)};
}

void Fa2Plan(const FlashCall& call, const FlashPlanBytes& bytes, void* staging, FlashPlan* plan,
             const LaunchContext& context) {
  Guarded("planning attention", context, [&] {
    flashinfer::PrefillPlanInfo info;
    const cudaError_t error = WithPlanArguments(call, context.stream, [&](auto... arguments) {
      return flashinfer::PrefillPlan<int32_t>(
          plan->partials, static_cast<size_t>(bytes.partials), plan->schedule, staging,
          static_cast<size_t>(bytes.schedule), info, arguments...);
    });
    const std::vector<int64_t> layout = info.ToVector();
    std::copy(layout.begin(), layout.end(), plan->layout.begin());
    return error;
  });
}

void Fa2Run(const FlashCall& call, const FlashPlan& plan, Matrix qkv, const void* kv_data,
            Matrix out, const LaunchContext& context) {
  Guarded("attention (FA2)", context, [&] {
    const flashinfer::PrefillPlanInfo info = InfoOf(plan);
    Fa2Params params = ParamsOf(call, qkv, kv_data, out);
    void* const schedule = plan.schedule;
    params.request_indices = Part<int32_t>(schedule, info.request_indices_offset);
    params.qo_tile_indices = Part<int32_t>(schedule, info.qo_tile_indices_offset);
    params.kv_tile_indices = Part<int32_t>(schedule, info.kv_tile_indices_offset);
    params.o_indptr = Part<int32_t>(schedule, info.o_indptr_offset);
    params.kv_chunk_size_ptr = Part<int32_t>(schedule, info.kv_chunk_size_ptr_offset);
    params.padded_batch_size = static_cast<uint32_t>(info.padded_batch_size);
    params.max_total_num_rows = static_cast<uint32_t>(info.total_num_rows);
    BFloat16* values = nullptr;
    float* scores = nullptr;
    if (info.split_kv) {
      params.merge_indptr = Part<int32_t>(schedule, info.merge_indptr_offset);
      values = Part<BFloat16>(plan.partials, info.v_offset);
      scores = Part<float>(plan.partials, info.s_offset);
    }
    return LaunchAny(call.shape, info.cta_tile_q, params, values, scores, context.stream);
  });
}

}  // namespace mneme::cuda
