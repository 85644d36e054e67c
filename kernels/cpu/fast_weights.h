#ifndef MNEME_KERNELS_CPU_FAST_WEIGHTS_H_
#define MNEME_KERNELS_CPU_FAST_WEIGHTS_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/scratch.h"

namespace mneme {

// Applies and updates fast weights ΔW. One thread at a time; may throw dnnl::error and
// std::bad_alloc.
class FastWeights {
 public:
  // Multiplies by `matmul`, not owned.
  FastWeights(Matmul* matmul, int threads) : matmul_(matmul), threads_(threads) {}

  // As Stream::DownProject, of a wave's segments.
  void DownProject(absl::Span<const ChunkSegment> segments, int64_t layer, Matrix z,
                   const CpuPackedMatrix& w_down, Matrix y);
  // As one update of Stream::UpdateFastWeights.
  ChunkUpdateResult Update(const FastWeightLayer& layer, const ChunkUpdate& update);

 private:
  void AddBase(absl::Span<const ChunkSegment> segments, Matrix z, const CpuPackedMatrix& w_down,
               Matrix y);
  void AddDelta(const void* values, Matrix rows, Matrix out);
  Matrix TargetValues(const FastWeightLayer& layer, const ChunkUpdate& update);
  Matrix Convolve(Matrix conv, float scale, Matrix target);
  double SumRows(int64_t rows, int64_t cols, const std::function<double(int64_t)>& row_sum);
  void Apply(const FastWeightLayer& layer, const ChunkUpdate& update, const float* u,
             ChunkUpdateResult& result);
  void Skip(const ChunkUpdate& update, ChunkUpdateResult& result);

  Matmul* matmul_;
  int threads_;
  Scratch taps_, convolved_, projected_, update_;
  std::vector<double> row_sums_;
};

}  // namespace mneme

#endif  // MNEME_KERNELS_CPU_FAST_WEIGHTS_H_
