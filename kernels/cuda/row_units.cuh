#ifndef MNEME_KERNELS_CUDA_ROW_UNITS_CUH_
#define MNEME_KERNELS_CUDA_ROW_UNITS_CUH_

// Rows that are copied a unit a thread, and those among them that open chunks keep, which kernels
// of other purposes copy on the way.

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cuda/step.h"

namespace mneme::cuda {

inline int64_t PitchOf(const Matrix& m) { return m.stride * SizeOf(m.dtype); }
inline int64_t RowBytesOf(const Matrix& m) { return m.cols * SizeOf(m.dtype); }

// Copies the i-th unit of a row. `from` is aligned to a unit; `to` is an address that may be known
// to the device alone, and a multiple of two bytes.
template <typename Unit>
__device__ __forceinline__ void CopyUnit(const char* from, char* to, int64_t i) {
  if (reinterpret_cast<uintptr_t>(to) % sizeof(Unit) == 0) {
    reinterpret_cast<Unit*>(to)[i] = reinterpret_cast<const Unit*>(from)[i];
    return;
  }
  constexpr int kPieces = sizeof(Unit) / sizeof(uint16_t);
  for (int64_t j = i * kPieces; j < (i + 1) * kPieces; ++j) {
    reinterpret_cast<uint16_t*>(to)[j] = reinterpret_cast<const uint16_t*>(from)[j];
  }
}

// ChunkRows as kernels take them. A row's units are those of its target, then those of its z.
struct KeptRows {
  struct Part {
    const char* from = nullptr;
    int64_t pitch_bytes = 0, row_bytes = 0;
    int64_t offset_bytes = 0;  // within an open chunk's block
  };

  const StepView* step = nullptr;
  int64_t wave = 0;
  int32_t rows = 0;
  Part target, z;

  // What the size of a unit must divide.
  uint64_t alignment_bits() const { return BitsOf(target) | BitsOf(z); }
  __host__ __device__ int64_t row_units(int unit_bytes) const {
    return (target.row_bytes + z.row_bytes) / unit_bytes;
  }

  // Puts a unit of a row to its place, if the row is kept.
  template <typename Unit>
  __device__ __forceinline__ void Put(int64_t row, int64_t unit) const {
    const WaveView& view = step->waves[wave];
    char* const block = static_cast<char*>(view.kept[row]);
    if (block == nullptr) return;
    const int64_t target_units = target.row_bytes / static_cast<int64_t>(sizeof(Unit));
    const bool is_target = unit < target_units;
    const Part part = is_target ? target : z;
    CopyUnit<Unit>(part.from + row * part.pitch_bytes,
                   block + part.offset_bytes + view.kept_offset[row] * part.row_bytes,
                   is_target ? unit : unit - target_units);
  }

 private:
  static uint64_t BitsOf(const Part& part) {
    return reinterpret_cast<uintptr_t>(part.from) |
           static_cast<uint64_t>(part.pitch_bytes | part.row_bytes);
  }
};

inline KeptRows KeptRowsOf(const StepView* step, int64_t wave, const ChunkRows& rows) {
  const auto part = [](const Matrix& m, int64_t offset_bytes) {
    return KeptRows::Part{static_cast<const char*>(m.data), PitchOf(m), RowBytesOf(m),
                          offset_bytes};
  };
  return {step, wave, static_cast<int32_t>(rows.z.rows),
          part(rows.target, rows.target_offset_bytes), part(rows.z, rows.z_offset_bytes)};
}

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_ROW_UNITS_CUH_
