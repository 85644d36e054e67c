// U as a product that applies itself: CUTLASS's kernel for Hopper with an epilogue of our own.

// Its kernel takes part in programmatic dependent launch.
#define CUTLASS_ENABLE_GDC_FOR_SM90 1

#include <cuda_bf16.h>

#include <cstdint>

// A constructor of CUTLASS's is annotated and defaulted.
#pragma nv_diag_suppress 20012
#include "cute/tensor.hpp"
#include "cutlass/cutlass.h"
#include "cutlass/device_kernel.h"
#include "cutlass/epilogue/collective/detail.hpp"
#include "cutlass/gemm/collective/collective_builder.hpp"
#include "cutlass/gemm/kernel/gemm_universal_decl.h"
#include "cutlass/gemm/kernel/tile_scheduler.hpp"
// The kernel needs what stands above.
#include "cutlass/gemm/kernel/sm90_gemm_tma_warpspecialized_pingpong.hpp"
#pragma nv_diag_default 20012
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/fast_weight_device.cuh"
#include "kernels/cuda/fast_weight_kernels.h"
#include "kernels/cuda/fast_weight_rounding.cuh"
#include "kernels/cuda/float_vectors.cuh"

namespace mneme::cuda {
namespace {

constexpr int kStrips = 4;  // of a tile in a thread: rows
constexpr int kUnits = 4;   // of a strip: 8 neighbouring elements each

// The accumulators of a warp group hold a tile as wgmma leaves it: of every 8 neighbouring columns,
// each of the four threads of a quad has two. They trade so that each has the 8 columns of one of
// four groups: element i of thread q becomes element q of thread i.
// Selections are byte permutations, whose selectors stay in registers.
class QuadTranspose {
 public:
  __device__ explicit QuadTranspose(int q)
      : odd_(q & 1 ? kSecond : kFirst), high_(q & 2 ? kSecond : kFirst) {}

  __device__ __forceinline__ void operator()(uint32_t (&x)[4]) const {
    Swap(x[0], x[1], 1, odd_);
    Swap(x[2], x[3], 1, odd_);
    Swap(x[0], x[2], 2, high_);
    Swap(x[1], x[3], 2, high_);
  }

 private:
  static constexpr uint32_t kFirst = 0x3210, kSecond = 0x7654;

  // The second element of the one thread for the first of the other.
  static __device__ __forceinline__ void Swap(uint32_t& first, uint32_t& second, int lanes,
                                              uint32_t keep) {
    const uint32_t sent = __byte_perm(second, first, keep);
    const uint32_t got = __shfl_xor_sync(~0u, sent, lanes);
    first = __byte_perm(first, got, keep);
    second = __byte_perm(got, second, keep);
  }

  uint32_t odd_, high_;
};

__device__ __forceinline__ Floats<8> ToFloats(const uint4& bits) {
  const uint32_t words[] = {bits.x, bits.y, bits.z, bits.w};
  Floats<8> out;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    out.at[2 * i] = __uint_as_float(words[i] << 16);
    out.at[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
  return out;
}

__device__ __forceinline__ uint4 UpperHalves(const uint32_t (&bits)[8]) {
  return make_uint4(__byte_perm(bits[0], bits[1], 0x7632), __byte_perm(bits[2], bits[3], 0x7632),
                    __byte_perm(bits[4], bits[5], 0x7632), __byte_perm(bits[6], bits[7], 0x7632));
}

// What becomes of a tile of U in the registers of a warp group. The names that CUTLASS asks for are
// its own.
class ApplyEpilogue {
 public:
  using ElementC = cutlass::bfloat16_t;
  using ElementD = cutlass::bfloat16_t;
  using StrideC = cute::Stride<int64_t, cute::_1, int64_t>;
  using StrideD = StrideC;
  struct SharedStorage {};
  struct Arguments {
    UpdateBatch batch;
    int index;
    int64_t counter_offset;
  };
  using Params = Arguments;

  template <typename Shape>
  static Params to_underlying_arguments(const Shape&, const Arguments& arguments, void*) {
    return arguments;
  }
  template <typename Shape>
  static size_t get_workspace_size(const Shape&, const Arguments&) {
    return 0;
  }

  __device__ explicit ApplyEpilogue(const Params& params) : params_(params) {}

  template <typename Shape, typename Block, typename Coord, typename Accumulators, typename Mma,
            typename Residue>
  __device__ void operator()(Shape, Block, const Coord& coord, const Accumulators& accumulators,
                             Mma, Residue, int thread, char*) {
    static_assert(Block{} ==
                  cute::Shape<cute::Int<kFusedRows>, cute::Int<kFusedCols>, cute::_64>{});
    static_assert(decltype(cute::size(accumulators))::value == kStrips * kUnits * 8);
    WaitForPrior();
    const int64_t tile_row = cute::get<0>(coord), tile_col = cute::get<1>(coord);
    const UpdateBatch& batch = params_.batch;
    if (tile_row * kFusedRows >= batch.d || tile_col * kFusedCols >= batch.f) return;
    const int row = thread / 32 * 16 + thread % 32 / 4, col = thread % 4 * 8;
    tile_first_ = tile_row * kFusedRows * batch.f + tile_col * kFusedCols;
    first_ = tile_first_ + row * batch.f + col;
    rows_left_ = static_cast<int>(batch.d - tile_row * kFusedRows) - row;
    cols_left_ = static_cast<int>(batch.f - tile_col * kFusedCols) - col;
    transpose_ = QuadTranspose(thread % 4);
    if (MustMeasure(batch, params_.index)) return Store(accumulators);
    const bool whole =
        (tile_row + 1) * kFusedRows <= batch.d && (tile_col + 1) * kFusedCols <= batch.f;
    const bool merge = task().merged != nullptr;
    const double2 sums =
        whole ? (merge ? Apply<true, true>(accumulators) : Apply<true, false>(accumulators))
              : (merge ? Apply<false, true>(accumulators) : Apply<false, false>(accumulators));
    const int64_t tile = tile_row * ((batch.f + kFusedCols - 1) / kFusedCols) + tile_col;
    if (thread % 32 == 0) {
      batch.sums[params_.index * batch.sums_stride + tile * kFusedWarps + thread / 32] = sums;
    }
  }

 private:
  struct Strip {
    uint4 old[kUnits], w_down[kUnits];
  };

  __device__ const UpdateTask& task() const { return params_.batch.tasks[params_.index]; }
  // Of the thread's unit, from `first_`.
  __device__ int64_t Offset(int strip, int unit) const {
    return (strip / 2 * 64 + strip % 2 * 8) * params_.batch.f + unit * 32;
  }
  __device__ bool IsInside(int strip, int unit) const {
    return strip / 2 * 64 + strip % 2 * 8 < rows_left_ && unit * 32 < cols_left_;
  }

  // U of the unit.
  template <typename Accumulators>
  __device__ __forceinline__ Floats<8> Unit(const Accumulators& accumulators, int strip,
                                            int unit) const {
    Floats<8> u;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      uint32_t bits[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int at = strip / 2 * 64 + (unit * 4 + i) * 4 + strip % 2 * 2 + j;
        bits[i] = __float_as_uint(accumulators(at));
      }
      transpose_(bits);
#pragma unroll
      for (int i = 0; i < 4; ++i) u.at[2 * i + j] = task().factor * __uint_as_float(bits[i]);
    }
    return u;
  }

  template <typename Accumulators>
  __device__ void Store(const Accumulators& accumulators) const {
    const UpdateBatch& batch = params_.batch;
    auto* out = static_cast<__nv_bfloat16*>(batch.updates) + params_.index * batch.d * batch.f;
#pragma unroll
    for (int strip = 0; strip < kStrips; ++strip) {
#pragma unroll
      for (int unit = 0; unit < kUnits; ++unit) {
        const Floats<8> u = Unit(accumulators, strip, unit);
        if (IsInside(strip, unit)) StoreFloats(out + first_ + Offset(strip, unit), u);
      }
    }
  }

  // What is not inside is read from the tile's first place and used by nobody.
  template <bool kWhole>
  __device__ __forceinline__ void LoadUnits(const void* from, int strip,
                                            uint4 (&to)[kUnits]) const {
#pragma unroll
    for (int unit = 0; unit < kUnits; ++unit) {
      const int64_t at =
          kWhole || IsInside(strip, unit) ? first_ + Offset(strip, unit) : tile_first_;
      to[unit] =
          __ldcs(reinterpret_cast<const uint4*>(static_cast<const __nv_bfloat16*>(from) + at));
    }
  }
  template <bool kWhole, bool kMerge>
  __device__ __forceinline__ Strip Load(int strip) const {
    Strip out = {};
    if (!task().delta_is_zero) LoadUnits<kWhole>(task().delta, strip, out.old);
    if constexpr (kMerge) LoadUnits<kWhole>(task().w_down, strip, out.w_down);
    return out;
  }

  // Σ U² and Σ ΔW² of a warp. A strip's loads are under way while the one before it is computed.
  // One warp a scheduler is here while the others multiply: few instructions and no branches count.
  template <bool kWhole, bool kMerge, typename Accumulators>
  __device__ __forceinline__ double2 Apply(const Accumulators& accumulators) const {
    const Rounding<__nv_bfloat16> rounding(
        task().delta_is_zero
            ? 0
            : *reinterpret_cast<const uint32_t*>(task().delta + params_.counter_offset));
    float2 sums = make_float2(0, 0);
    Strip next = Load<kWhole, kMerge>(0);
#pragma unroll
    for (int strip = 0; strip < kStrips; ++strip) {
      const Strip current = next;
      if (strip + 1 < kStrips) next = Load<kWhole, kMerge>(strip + 1);
#pragma unroll
      for (int unit = 0; unit < kUnits; ++unit) {
        Combine<kWhole, kMerge>(strip, unit, Unit(accumulators, strip, unit), current, rounding,
                                &sums);
      }
    }
    double2 wide = make_double2(static_cast<double>(sums.x), static_cast<double>(sums.y));
    if (!(sums.y < 1e37f)) wide.y = WideDeltaSquares();
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      wide.x += __shfl_xor_sync(~0u, wide.x, offset);
      wide.y += __shfl_xor_sync(~0u, wide.y, offset);
    }
    return wide;
  }

  template <bool kWhole, bool kMerge>
  __device__ __forceinline__ void Combine(int strip, int unit, const Floats<8>& u,
                                          const Strip& current,
                                          const Rounding<__nv_bfloat16>& rounding,
                                          float2* sums) const {
    const int64_t element = first_ + Offset(strip, unit);
    const bool inside = kWhole || IsInside(strip, unit);
    const Floats<8> old = ToFloats(current.old[unit]);
    Floats<8> values;
#pragma unroll
    for (int i = 0; i < 8; ++i) values.at[i] = fmaf(task().keep, old.at[i], u.at[i]);
    uint32_t bits[8];
    rounding.RoundBits(values, element, bits);
    if (inside) __stcs(reinterpret_cast<uint4*>(delta() + element), UpperHalves(bits));
#pragma unroll
    for (int i = 0; i < 8; ++i) values.at[i] = __uint_as_float(bits[i] & 0xffff0000u);
    float2 squares = make_float2(0, 0);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      squares.x = fmaf(u.at[i], u.at[i], squares.x);  // at most 1e36: MustMeasure
      squares.y = fmaf(values.at[i], values.at[i], squares.y);
    }
    sums->x += inside ? squares.x : 0;
    sums->y += inside ? squares.y : 0;
    if constexpr (!kMerge) return;
    const Floats<8> w_down = ToFloats(current.w_down[unit]);
#pragma unroll
    for (int i = 0; i < 8; ++i) values.at[i] += w_down.at[i];
    if (inside) StoreFloats(static_cast<__nv_bfloat16*>(task().merged) + element, values);
  }

  __device__ __nv_bfloat16* delta() const { return reinterpret_cast<__nv_bfloat16*>(task().delta); }

  // Σ ΔW² of what the thread has written, where float32 is too small for it.
  __device__ __noinline__ double WideDeltaSquares() const {
    double sum = 0;
#pragma unroll 1
    for (int i = 0; i < kStrips * kUnits; ++i) {
      if (!IsInside(i / kUnits, i % kUnits)) continue;
      sum += SumSquares(LoadFloats<8>(delta() + first_ + Offset(i / kUnits, i % kUnits)));
    }
    return sum;
  }

  const Params& params_;
  int64_t tile_first_ = 0, first_ = 0;  // elements of ΔW: the tile's and the thread's first
  int rows_left_ = 0, cols_left_ = 0;   // from the thread's first element to ΔW's ends
  QuadTranspose transpose_{0};
};

// Blocks of two that share z's columns; two warp groups take tiles by turns, one multiplying while
// the other applies. Bound by the tensor cores, with the traffic of ΔW behind them.
using Tile = cute::Shape<cute::Int<kFusedRows>, cute::Int<kFusedCols>, cute::_64>;
using Cluster = cute::Shape<cute::_2, cute::_1, cute::_1>;
using Epilogue =
    cutlass::epilogue::collective::detail::Sm90TmaWarpSpecializedAdapter<ApplyEpilogue>;
using Mainloop = cutlass::gemm::collective::CollectiveBuilder<
    cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp,   //
    cutlass::bfloat16_t, cutlass::layout::ColumnMajor, 8,  // vᵀ
    cutlass::bfloat16_t, cutlass::layout::RowMajor, 8,     // z
    float, Tile, Cluster, cutlass::gemm::collective::StageCountAutoCarveout<1024>,
    cutlass::gemm::KernelTmaWarpSpecializedPingpong>::CollectiveOp;
using Kernel = cutlass::gemm::kernel::GemmUniversal<cute::Shape<int, int, int, int>, Mainloop,
                                                    Epilogue, cutlass::gemm::PersistentScheduler>;

bool IsAligned(const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }

Kernel::Arguments ArgumentsOf(const UpdateBatch& batch, int index, const DeltaLayout& layout,
                              const LaunchContext& context) {
  const UpdateTask& task = batch.tasks[index];
  const auto* values = static_cast<const cutlass::bfloat16_t*>(batch.values);
  Kernel::Arguments arguments{};
  arguments.mode = cutlass::gemm::GemmUniversalMode::kGemm;
  arguments.problem_shape = {static_cast<int>(batch.d), static_cast<int>(batch.f),
                             static_cast<int>(task.rows), 1};
  arguments.mainloop.ptr_A = values + task.first_row * batch.d;
  arguments.mainloop.dA = {cute::_1{}, batch.d, 0};
  arguments.mainloop.ptr_B = static_cast<const cutlass::bfloat16_t*>(task.z);
  arguments.mainloop.dB = {cute::_1{}, task.z_stride, 0};
  arguments.epilogue = {batch, index, layout.counter_offset()};
  arguments.hw_info.sm_count = context.num_sms;
  return arguments;
}

}  // namespace

bool CanMultiplyAndApply(const UpdateBatch& batch, int index, const DeltaLayout& layout) {
  const UpdateTask& task = batch.tasks[index];
  return batch.dtype == DType::kBF16 && layout.accumulate == DeltaType::kBFloat16 &&
         layout.read == layout.accumulate && batch.d % 8 == 0 && batch.f % 8 == 0 &&
         !task.controlled() && IsAligned(task.z) && task.z_stride % 8 == 0;
}

void MultiplyAndApply(const UpdateBatch& batch, int index, const DeltaLayout& layout,
                      const LaunchContext& context) {
  if (!context.errors->ok()) return;
  const Kernel::Params params =
      Kernel::to_underlying_arguments(ArgumentsOf(batch, index, layout, context), nullptr);
  const auto kernel = cutlass::device_kernel<Kernel>;
  context.errors->Check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             Kernel::SharedStorageSize),
                        "MultiplyAndApply");
  cudaLaunchAttribute attributes[2];
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim = {cute::size<0>(Cluster{}), cute::size<1>(Cluster{}), 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = Kernel::get_grid_shape(params);
  config.blockDim = Kernel::get_block_shape();
  config.dynamicSmemBytes = Kernel::SharedStorageSize;
  config.stream = context.stream;
  config.attrs = attributes;
  config.numAttrs = 2;
  context.errors->Check(cudaLaunchKernelEx(&config, kernel, params), "MultiplyAndApply");
}

}  // namespace mneme::cuda
