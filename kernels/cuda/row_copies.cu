#include <cuda_fp16.h>

#include "kernels/cuda/row_view.cuh"
#include "kernels/cuda/rows.h"

namespace mneme::cuda {
namespace {

constexpr int64_t kMaxThreads = 256;

// Where rows come from and go to. Each route has From(row) and To(row); null: nowhere.
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

struct Kept : Plain {
  const StepView* step;
  int64_t wave;
  int64_t offset_bytes;

  __device__ char* To(int64_t row) const {
    const WaveView& view = step->waves[wave];
    char* block = static_cast<char*>(view.kept[row]);
    return block == nullptr ? nullptr : block + offset_bytes + view.kept_offset[row] * to_pitch;
  }
};

// A unit of a row a thread, a row a block of the grid's first dimension. Bound by device memory.
template <typename Unit, typename Route>
__global__ void __launch_bounds__(kMaxThreads) MoveRows(Route route, int64_t units) {
  LetNextStart();
  WaitForPrior();
  const int64_t i = int64_t{blockIdx.y} * blockDim.x + threadIdx.x;
  if (i >= units) return;
  char* to = route.To(blockIdx.x);
  if (to == nullptr) return;
  const char* from = route.From(blockIdx.x);
  if (reinterpret_cast<uintptr_t>(to) % sizeof(Unit) == 0) {
    reinterpret_cast<Unit*>(to)[i] = reinterpret_cast<const Unit*>(from)[i];
    return;
  }
  // An address that only the device knows.
  constexpr int kPieces = sizeof(Unit) / sizeof(uint16_t);
  for (int64_t j = i * kPieces; j < (i + 1) * kPieces; ++j) {
    reinterpret_cast<uint16_t*>(to)[j] = reinterpret_cast<const uint16_t*>(from)[j];
  }
}

template <typename Unit, typename Route>
void MoveUnits(const Route& route, int64_t rows, int64_t row_bytes, const char* name,
               const LaunchContext& context) {
  const int64_t units = row_bytes / static_cast<int64_t>(sizeof(Unit));
  const dim3 block = BlockFor(units, kMaxThreads);
  Launch(context, name, MoveRows<Unit, Route>, GridFor(rows, units, block.x), block, 0, route,
         units);
}

// Moves rows by the largest unit that fits addresses and sizes.
template <typename Route>
void Move(const Route& route, int64_t rows, int64_t row_bytes, const char* name,
          const LaunchContext& context) {
  const uint64_t bits = reinterpret_cast<uintptr_t>(route.from) |
                        reinterpret_cast<uintptr_t>(route.to) |
                        static_cast<uint64_t>(route.from_pitch | route.to_pitch | row_bytes);
  if (bits % 16 == 0) return MoveUnits<uint4>(route, rows, row_bytes, name, context);
  if (bits % 4 == 0) return MoveUnits<uint32_t>(route, rows, row_bytes, name, context);
  MoveUnits<uint16_t>(route, rows, row_bytes, name, context);
}

int64_t PitchOf(const Matrix& m) { return m.stride * SizeOf(m.dtype); }
int64_t RowBytesOf(const Matrix& m) { return m.cols * SizeOf(m.dtype); }

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

void KeepRows(const StepView* step, int64_t wave, Matrix rows, int64_t offset_bytes,
              const LaunchContext& context) {
  const int64_t row_bytes = RowBytesOf(rows);
  const Plain route = {static_cast<const char*>(rows.data), PitchOf(rows), nullptr, row_bytes};
  Move(Kept{route, step, wave, offset_bytes}, rows.rows, row_bytes, "KeepRows", context);
}

}  // namespace mneme::cuda
