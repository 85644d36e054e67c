#include <cuda_bf16.h>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/rows.h"

namespace mneme::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kKeysAtOnce = 4;  // loads in flight before the first use

struct PlainShape {
  int query_heads, kv_heads, head_dim, page_tokens, group;
  int64_t page_stride;             // elements
  int64_t qkv_stride, out_stride;  // elements
  int64_t window;                  // 0: none
  float scale;
};

// What a warp has gathered of a softmax: the largest score, the weights' sum relative to it, and
// the weighted sum of the values, whose elements lane + 32 i the lane holds.
template <int kPerLane>
struct Partial {
  float max = -INFINITY;
  float sum = 0;
  float value[kPerLane] = {};
};

template <typename T, int kPerLane>
__device__ void LoadHead(const T* p, int head_dim, float (&x)[kPerLane]) {
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int d = static_cast<int>(threadIdx.x) % 32 + 32 * i;
    x[i] = d < head_dim ? ToFloat(p[d]) : 0.f;
  }
}

template <int kPerLane>
__device__ void AddKey(float score, const float (&v)[kPerLane], Partial<kPerLane>& partial) {
  const float max = fmaxf(partial.max, score);
  const float keep = __expf(partial.max - max);
  const float weight = __expf(score - max);
  partial.max = max;
  partial.sum = partial.sum * keep + weight;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) partial.value[i] = partial.value[i] * keep + weight * v[i];
}

// The warps' partials become one, in the order of the warps, and the first warp writes it.
template <typename T, int kPerLane>
__device__ void MergeAndStore(const Partial<kPerLane>& partial, int head_dim, T* out) {
  __shared__ Partial<kPerLane> partials[kWarps][32];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  partials[warp][lane] = partial;
  __syncthreads();
  if (warp != 0) return;
  float max = -INFINITY;
  for (int w = 0; w < kWarps; ++w) max = fmaxf(max, partials[w][lane].max);
  float sum = 0, value[kPerLane] = {};
  for (int w = 0; w < kWarps; ++w) {
    const Partial<kPerLane>& other = partials[w][lane];
    const float weight = __expf(other.max - max);  // 0 for a warp without keys
    sum += weight * other.sum;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) value[i] += weight * other.value[i];
  }
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int d = lane + 32 * i;
    if (d < head_dim) out[d] = FromFloat<T>(value[i] / sum);
  }
}

// A block for each row (x) and query head (y); its warps take every eighth group of
// kKeysAtOnce keys, the lanes of a warp the elements of a head. Bound by the caches: query heads
// read their KV head's keys and values once each.
template <typename T, int kPerLane>
__global__ void __launch_bounds__(kWarps * 32)
    PlainAttentionKernel(const StepView* step, const T* qkv, const T* kv, T* out,
                         PlainShape shape) {
  LetNextStart();
  WaitForPrior();
  const int64_t row = blockIdx.x;
  const int head = static_cast<int>(blockIdx.y);
  const int head_dim = shape.head_dim;
  T* const out_head = out + row * shape.out_stride + int64_t{head} * head_dim;
  if (row >= step->rows) {
    for (int d = static_cast<int>(threadIdx.x); d < head_dim; d += kWarps * 32) {
      out_head[d] = FromFloat<T>(0.f);
    }
    return;
  }
  const KvGroupView& view = step->groups[shape.group];
  const int sequence = step->row_sequence[row];
  const int32_t* const pages = view.pages + view.page_indptr[sequence];
  // Positions count from slot 0 of the first page.
  const int64_t last = int64_t{step->positions[row]} - view.first_position[sequence];
  const int64_t first = shape.window > 0 && last >= shape.window ? last - shape.window + 1 : 0;
  const int64_t token_stride = int64_t{shape.kv_heads} * head_dim;
  const T* const kv_head = kv + int64_t{head} * shape.kv_heads / shape.query_heads * head_dim;

  float q[kPerLane];
  LoadHead(qkv + row * shape.qkv_stride + int64_t{head} * head_dim, head_dim, q);
  Partial<kPerLane> partial;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  for (int64_t begin = first + warp * kKeysAtOnce; begin <= last; begin += kWarps * kKeysAtOnce) {
    float k[kKeysAtOnce][kPerLane], v[kKeysAtOnce][kPerLane], score[kKeysAtOnce];
#pragma unroll
    for (int j = 0; j < kKeysAtOnce; ++j) {
      const int64_t position = begin + j <= last ? begin + j : last;
      const T* const key = kv_head + pages[position / shape.page_tokens] * shape.page_stride +
                           position % shape.page_tokens * token_stride;
      LoadHead(key, head_dim, k[j]);
      LoadHead(key + shape.page_tokens * token_stride, head_dim, v[j]);
    }
#pragma unroll
    for (int j = 0; j < kKeysAtOnce; ++j) {
      float dot = 0;
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) dot += q[i] * k[j][i];
      score[j] = WarpSum(dot) * shape.scale;
    }
#pragma unroll
    for (int j = 0; j < kKeysAtOnce; ++j) {
      if (begin + j <= last) AddKey(score[j], v[j], partial);
    }
  }
  MergeAndStore(partial, head_dim, out_head);
}

template <typename T>
void LaunchPlain(const StepView* step, int64_t padded_rows, const Matrix& qkv,
                 const PlainShape& shape, const void* kv_data, const Matrix& out,
                 const LaunchContext& context) {
  auto* const kernel = shape.head_dim <= 64    ? PlainAttentionKernel<T, 2>
                       : shape.head_dim <= 128 ? PlainAttentionKernel<T, 4>
                                               : PlainAttentionKernel<T, 8>;
  const dim3 grid(static_cast<unsigned>(padded_rows), static_cast<unsigned>(shape.query_heads));
  Launch(context, "plain attention", kernel, grid, dim3(kWarps * 32), 0, step,
         static_cast<const T*>(qkv.data), static_cast<const T*>(kv_data), static_cast<T*>(out.data),
         shape);
}

}  // namespace

void PlainAttention(const StepView* step, int64_t padded_rows, Matrix qkv,
                    const AttentionShape& shape, const void* kv_data, Matrix out,
                    const LaunchContext& context) {
  const KvLayer& kv = shape.kv;
  if (shape.heads.head_dim > kMaxHeadDim || qkv.dtype != kv.dtype || out.dtype != kv.dtype) {
    context.errors->Fail(absl::StrCat("attention of head size ", shape.heads.head_dim,
                                      " is not supported: it must be at most ", kMaxHeadDim,
                                      ", and keys of the activations' type"));
    return;
  }
  const PlainShape plain = {static_cast<int>(shape.heads.query_heads),
                            static_cast<int>(shape.heads.kv_heads),
                            static_cast<int>(shape.heads.head_dim),
                            static_cast<int>(kv.page_tokens),
                            kv.group,
                            kv.page_stride_bytes / SizeOf(kv.dtype),
                            qkv.stride,
                            out.stride,
                            shape.window,
                            shape.scale};
  if (kv.dtype == DType::kBF16) {
    LaunchPlain<__nv_bfloat16>(step, padded_rows, qkv, plain, kv_data, out, context);
  } else if (kv.dtype == DType::kF32) {
    LaunchPlain<float>(step, padded_rows, qkv, plain, kv_data, out, context);
  } else {
    context.errors->Fail("attention works on float32 and bf16 only");
  }
}

}  // namespace mneme::cuda
