#include <cuda_fp16.h>

#include "kernels/cuda/row_units.cuh"
#include "kernels/cuda/row_view.cuh"
#include "kernels/cuda/rows.h"

namespace mneme::cuda {
namespace {

constexpr int64_t kMaxThreads = 256;

// Where rows come from and go to. Each route has From(row) and To(row).
struct Plain {
  const char* from;
  int64_t from_pitch;  // bytes
  char* to;
  int64_t to_pitch;

  __device__ const char* From(int64_t row) const { return from + row * from_pitch; }
  __device__ char* To(int64_t row) const { return to + row * to_pitch; }
};

struct Gathered : Plain {
  const int32_t* rows;

  __device__ const char* From(int64_t row) const { return from + rows[row] * from_pitch; }
};

struct Embedded : Plain {
  const StepView* step;

  __device__ const char* From(int64_t row) const {
    return from + step->token_ids[row] * from_pitch;
  }
};

// A unit of a row a thread, a row a block of the grid's first dimension. Bound by device memory.
template <typename Unit, typename Route>
__global__ void __launch_bounds__(kMaxThreads) MoveRows(Route route, int64_t units) {
  LetNextStart();
  WaitForPrior();
  const int64_t i = int64_t{blockIdx.y} * blockDim.x + threadIdx.x;
  if (i >= units) return;
  CopyUnit<Unit>(route.From(blockIdx.x), route.To(blockIdx.x), i);
}

// Likewise, of what open chunks keep.
template <typename Unit>
__global__ void __launch_bounds__(kMaxThreads) PutKept(const __grid_constant__ KeptRows kept) {
  LetNextStart();
  WaitForPrior();
  const int64_t i = int64_t{blockIdx.y} * blockDim.x + threadIdx.x;
  if (i < kept.row_units(sizeof(Unit))) kept.Put<Unit>(blockIdx.x, i);
}

// Calls run(Unit{}) with the largest unit that divides addresses and sizes.
template <typename Run>
void WithUnit(uint64_t alignment_bits, const Run& run) {
  if (alignment_bits % 16 == 0) return run(uint4{});
  if (alignment_bits % 4 == 0) return run(uint32_t{});
  run(uint16_t{});
}

template <typename Route>
void Move(const Route& route, int64_t rows, int64_t row_bytes, const char* name,
          const LaunchContext& context) {
  const uint64_t bits = reinterpret_cast<uintptr_t>(route.from) |
                        reinterpret_cast<uintptr_t>(route.to) |
                        static_cast<uint64_t>(route.from_pitch | route.to_pitch | row_bytes);
  WithUnit(bits, [&](auto unit) {
    const int64_t units = row_bytes / static_cast<int64_t>(sizeof unit);
    const dim3 block = BlockFor(units, kMaxThreads);
    Launch(context, name, MoveRows<decltype(unit), Route>, GridFor(rows, units, block.x), block, 0,
           route, units);
  });
}

Plain Route(const Matrix& from, const Matrix& to) {
  return {static_cast<const char*>(from.data), PitchOf(from), static_cast<char*>(to.data),
          PitchOf(to)};
}

__device__ __forceinline__ float Widen(float x) { return x; }
__device__ __forceinline__ float Widen(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float Widen(__half x) { return __half2float(x); }

// An element a thread, a row a block of the grid's first dimension.
template <typename From, typename To>
__global__ void __launch_bounds__(kMaxThreads)
    EmbedConverted(const StepView* step, RowView<const From> table, int64_t cols, RowView<To> out) {
  LetNextStart();
  WaitForPrior();
  const int64_t i = int64_t{blockIdx.y} * blockDim.x + threadIdx.x;
  if (i >= cols) return;
  out[blockIdx.x][i] = FromFloat<To>(Widen(table[step->token_ids[blockIdx.x]][i]));
}

template <typename From>
void EmbedFrom(const StepView* step, Matrix table, Matrix out, const LaunchContext& context) {
  ForActivationType(out.dtype, context, [&](auto type) {
    using To = decltype(type);
    const dim3 block = BlockFor(out.cols, kMaxThreads);
    Launch(context, "Embed", EmbedConverted<From, To>, GridFor(out.rows, out.cols, block.x), block,
           0, step, ViewOf<const From>(table), out.cols, ViewOf<To>(out));
  });
}

}  // namespace

void Embed(const StepView* step, Matrix table, Matrix out, const LaunchContext& context) {
  if (table.dtype == out.dtype) {
    return Move(Embedded{Route(table, out), step}, out.rows, RowBytesOf(out), "Embed", context);
  }
  switch (table.dtype) {
    case DType::kF32:
      return EmbedFrom<float>(step, table, out, context);
    case DType::kF16:
      return EmbedFrom<__half>(step, table, out, context);
    case DType::kBF16:
      return EmbedFrom<__nv_bfloat16>(step, table, out, context);
  }
}

void CopyRows(Matrix from, Matrix to, const LaunchContext& context) {
  Move(Route(from, to), to.rows, RowBytesOf(to), "CopyRows", context);
}

void GatherRows(Matrix in, const int32_t* rows, Matrix out, const LaunchContext& context) {
  Move(Gathered{Route(in, out), rows}, out.rows, RowBytesOf(out), "GatherRows", context);
}

void KeepRows(const StepView* step, int64_t wave, const ChunkRows& rows,
              const LaunchContext& context) {
  const KeptRows kept = KeptRowsOf(step, wave, rows);
  WithUnit(kept.alignment_bits(), [&](auto unit) {
    const int64_t units = kept.row_units(sizeof unit);
    const dim3 block = BlockFor(units, kMaxThreads);
    Launch(context, "KeepRows", PutKept<decltype(unit)>, GridFor(kept.rows, units, block.x), block,
           0, kept);
  });
}

}  // namespace mneme::cuda
