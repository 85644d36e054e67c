#include "kernels/cuda/row_view.cuh"
#include "kernels/cuda/rows.h"

namespace mneme::cuda {
namespace {

constexpr int kThreads = 128;

// A frequency a thread, a row a block of the grid's first dimension. The angle is reduced in
// double, as half turns, for which the remainder is exact.
__global__ void __launch_bounds__(kThreads)
    RopeKernel(const StepView* step, const double* inverse_frequencies, int half, double factor,
               RowView<float> out) {
  constexpr double kHalfTurns = 0.318309886183790671538;  // 1 / π
  LetNextStart();
  WaitForPrior();
  const int i = blockIdx.y * kThreads + threadIdx.x;
  if (i >= half) return;
  const double angle = step->positions[blockIdx.x] * inverse_frequencies[i];
  double sine, cosine;
  sincospi(angle * kHalfTurns, &sine, &cosine);
  float* row = out[blockIdx.x];
  row[i] = static_cast<float>(cosine * factor);
  row[half + i] = static_cast<float>(sine * factor);
}

// What both kernels below work on.
template <typename T>
struct RotateArguments {
  const StepView* step;
  RowView<T> qkv;
  int query_heads, kv_heads, head_dim;
  const float* q_weight;  // null: no norm
  const float* k_weight;
  float epsilon;
  RowView<const float> rope;
  char* kv;
  int64_t page_stride_bytes;
  int page_tokens;
  int group;

  __device__ int heads() const { return query_heads + 2 * kv_heads; }
  __device__ bool IsValue(int head) const { return head >= query_heads + kv_heads; }
  __device__ const float* WeightOf(int head) const {
    return head < query_heads ? q_weight : k_weight;
  }
  // Where a key or value head of a row is stored; null: nowhere.
  __device__ T* Stored(int64_t row, int head) const {
    if (head < query_heads) return nullptr;
    const int slot = step->groups[group].slots[row];
    if (slot < 0) return nullptr;
    const int page = slot / page_tokens;
    // A page's values follow the keys of all its tokens.
    const int64_t token = slot % page_tokens + (IsValue(head) ? page_tokens : 0);
    const int kv_head = (head - query_heads) % kv_heads;
    T* const begin = reinterpret_cast<T*>(kv + page * page_stride_bytes);
    return begin + (token * kv_heads + kv_head) * head_dim;
  }
};

__device__ __forceinline__ float InverseRms(float sum_squares, int head_dim, float epsilon) {
  return 1.0f / sqrtf(sum_squares / static_cast<float>(head_dim) + epsilon);
}

// Rotates the pair (a, b).
__device__ __forceinline__ void RotatePair(float& a, float& b, float cosine, float sine) {
  const float first = a * cosine - b * sine;
  b = a * sine + b * cosine;
  a = first;
}

template <int kCount>
__device__ __forceinline__ void LoadFloats(const float* from, float (&to)[kCount]) {
#pragma unroll
  for (int j = 0; j < kCount; j += 4) {
    const Vec16<float> v = LoadVec16(from + j);
#pragma unroll
    for (int k = 0; k < 4; ++k) to[j + k] = v.values[k];
  }
}

// x = x · inverse ⊙ weight.
template <int kCount>
__device__ __forceinline__ void Scale(const float* weight, float inverse, float (&x)[kCount]) {
  float scale[kCount];
  LoadFloats(weight, scale);
#pragma unroll
  for (int j = 0; j < kCount; ++j) x[j] = x[j] * inverse * scale[j];
}

// `lanes` neighbouring threads a head (a power of two), each with one vector of 16 bytes of either
// half; a row a block of the grid's first dimension. Bound by device memory.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    RotateVectors(const __grid_constant__ RotateArguments<T> args, int lanes) {
  constexpr int kCount = Vec16<T>::kCount;
  LetNextStart();
  WaitForPrior();
  const int64_t row = blockIdx.x;
  const int head = (blockIdx.y * kThreads + threadIdx.x) / lanes;
  const int half = args.head_dim / 2;
  const int i = threadIdx.x % lanes * kCount;
  const bool valid = head < args.heads();
  T* const x = args.qkv[row] + (valid ? head : 0) * args.head_dim + i;
  Vec16<T> first = LoadVec16(x);
  Vec16<T> second = LoadVec16(x + half);
  T* const stored = valid ? args.Stored(row, head) : nullptr;
  float cosine[kCount], sine[kCount];
  LoadFloats(args.rope[row] + i, cosine);
  LoadFloats(args.rope[row] + half + i, sine);
  float a[kCount], b[kCount];
  float sum = 0;
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    a[j] = ToFloat(first.values[j]);
    b[j] = ToFloat(second.values[j]);
    sum += a[j] * a[j] + b[j] * b[j];
  }
  for (int offset = lanes / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(~0u, sum, offset);
  if (!valid) return;

  if (!args.IsValue(head)) {
    if (const float* weight = args.WeightOf(head); weight != nullptr) {
      const float inverse = InverseRms(sum, args.head_dim, args.epsilon);
      Scale(weight + i, inverse, a);
      Scale(weight + half + i, inverse, b);
    }
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      RotatePair(a[j], b[j], cosine[j], sine[j]);
      first.values[j] = FromFloat<T>(a[j]);
      second.values[j] = FromFloat<T>(b[j]);
    }
    StoreVec16(x, first);
    StoreVec16(x + half, second);
  }
  if (stored == nullptr) return;
  StoreVec16(stored + i, first);
  StoreVec16(stored + half + i, second);
}

// A warp a head; any even head size up to kMaxHeadDim, any alignment.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    RotatePlain(const __grid_constant__ RotateArguments<T> args) {
  constexpr int kPairs = kMaxHeadDim / 2 / 32;
  LetNextStart();
  WaitForPrior();
  const int64_t row = blockIdx.x;
  const int head = (blockIdx.y * kThreads + threadIdx.x) / 32;
  if (head >= args.heads()) return;
  const int lane = threadIdx.x % 32;
  const int half = args.head_dim / 2;
  T* const x = args.qkv[row] + head * args.head_dim;
  float a[kPairs], b[kPairs];
  float sum = 0;
#pragma unroll
  for (int j = 0; j < kPairs; ++j) {
    const int i = lane + 32 * j;
    a[j] = i < half ? ToFloat(x[i]) : 0;
    b[j] = i < half ? ToFloat(x[half + i]) : 0;
    sum += a[j] * a[j] + b[j] * b[j];
  }
  const float inverse = InverseRms(WarpSum(sum), args.head_dim, args.epsilon);
  T* const stored = args.Stored(row, head);
#pragma unroll
  for (int j = 0; j < kPairs; ++j) {
    const int i = lane + 32 * j;
    if (i >= half) continue;
    if (!args.IsValue(head)) {
      if (const float* weight = args.WeightOf(head); weight != nullptr) {
        a[j] = a[j] * inverse * weight[i];
        b[j] = b[j] * inverse * weight[half + i];
      }
      RotatePair(a[j], b[j], args.rope[row][i], args.rope[row][half + i]);
      x[i] = FromFloat<T>(a[j]);
      x[half + i] = FromFloat<T>(b[j]);
    }
    if (stored == nullptr) continue;
    stored[i] = FromFloat<T>(a[j]);
    stored[half + i] = FromFloat<T>(b[j]);
  }
}

template <typename T>
void Rotate(const RotateArguments<T>& args, int64_t rows, bool aligned,
            const LaunchContext& context) {
  const int64_t heads = args.query_heads + 2 * int64_t{args.kv_heads};
  const int lanes = args.head_dim / 2 / Vec16<T>::kCount;
  const bool vectors = aligned && lanes * 2 * Vec16<T>::kCount == args.head_dim && lanes > 0 &&
                       (lanes & (lanes - 1)) == 0;
  if (vectors) {
    return Launch(context, "RotateAndStore", RotateVectors<T>,
                  GridFor(rows, heads * lanes, kThreads), dim3(kThreads), 0, args, lanes);
  }
  Launch(context, "RotateAndStore", RotatePlain<T>, GridFor(rows, heads * 32, kThreads),
         dim3(kThreads), 0, args);
}

}  // namespace

void ComputeRope(const StepView* step, const double* inverse_frequencies, double attention_factor,
                 Matrix out, const LaunchContext& context) {
  const int64_t half = out.cols / 2;
  Launch(context, "ComputeRope", RopeKernel, GridFor(out.rows, half, kThreads), dim3(kThreads), 0,
         step, inverse_frequencies, static_cast<int>(half), attention_factor, ViewOf<float>(out));
}

void RotateAndStore(const StepView* step, Matrix qkv, const QkvShape& shape, const QkNorm& norm,
                    Matrix rope, const KvLayer& kv, const LaunchContext& context) {
  if (shape.head_dim > kMaxHeadDim || shape.head_dim % 2 != 0 || kv.dtype != qkv.dtype) {
    return context.errors->Fail(
        "RotateAndStore takes even head sizes up to 256 and a cache of the activations' dtype");
  }
  const bool aligned = HasAlignedRows(qkv) && HasAlignedRows(rope) && IsAligned16(norm.q_weight) &&
                       IsAligned16(norm.k_weight) && IsAligned16(kv.data) &&
                       kv.page_stride_bytes % 16 == 0;
  ForActivationType(qkv.dtype, context, [&](auto type) {
    using T = decltype(type);
    const RotateArguments<T> args = {.step = step,
                                     .qkv = ViewOf<T>(qkv),
                                     .query_heads = static_cast<int>(shape.query_heads),
                                     .kv_heads = static_cast<int>(shape.kv_heads),
                                     .head_dim = static_cast<int>(shape.head_dim),
                                     .q_weight = static_cast<const float*>(norm.q_weight),
                                     .k_weight = static_cast<const float*>(norm.k_weight),
                                     .epsilon = norm.epsilon,
                                     .rope = ViewOf<const float>(rope),
                                     .kv = static_cast<char*>(kv.data),
                                     .page_stride_bytes = kv.page_stride_bytes,
                                     .page_tokens = static_cast<int>(kv.page_tokens),
                                     .group = kv.group};
    Rotate<T>(args, qkv.rows, aligned, context);
  });
}

}  // namespace mneme::cuda
