#ifndef MNEME_BENCH_MATMUL_ALONE_H_
#define MNEME_BENCH_MATMUL_ALONE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/stopwatch.h"
#include "engine/loading/config.h"
#include "engine/loading/weights.h"
#include "kernels/backend.h"

namespace mneme {

// The matrix products of a step and nothing else: what the matmul library alone needs. Counted are,
// for n rows,
//   in each layer    the fused q, k, v projection, the output projection, the fused gate and up
//                    projection and the down projection, with the model's own packed weights;
//   for logits       the language model head, for one row;
//   with learning    in each TTT layer the rows of later chunks than the first times ΔW [d, f], and
//                    for each chunk that closes the update's products c W_proj [C, d] x [d, d] and
//                    vᵀ z [d, C] x [C, f].
// ΔW and z stand for matrices of the same shape that were packed beforehand, as weights are: the
// library's own best case, though a session's are plain. One thread.
class MatmulAlone {
 public:
  struct Step {
    Duration duration;
    double gigaflops = 0;  // 10⁹ floating-point operations
  };

  // `config`, `weights` and `backend` must outlive it. Steps of up to `step_tokens` rows.
  static absl::StatusOr<std::unique_ptr<MatmulAlone>> Create(const ModelConfig& config,
                                                             const ModelWeights& weights,
                                                             Backend& backend, int64_t step_tokens);

  // The products of a step of `rows` rows from `position` on.
  absl::StatusOr<Step> Run(int64_t rows, int64_t position, bool logits, bool learning);

 private:
  MatmulAlone(const ModelConfig& config, const ModelWeights& weights)
      : config_(config), weights_(weights) {}
  absl::Status Allocate(Backend& backend, int64_t step_tokens);
  absl::Status PackStandIns(Backend& backend);

  void Multiply(int64_t rows, const PackedMatrix& weight, bool accumulate);
  void RunLearning(const LayerWeights& layer, const PackedMatrix& delta, int64_t rows,
                   int64_t position);

  const ModelConfig& config_;
  const ModelWeights& weights_;
  std::unique_ptr<Stream> stream_;
  std::vector<std::unique_ptr<PackedMatrix>> deltas_;  // ΔW of each TTT layer [d, f]
  std::unique_ptr<PackedMatrix> z_;                    // zᵀ [f, C]; null without TTT
  DeviceBuffer input_, output_;                        // of any of the products
  double gigaflops_ = 0;                               // of the step
};

}  // namespace mneme

#endif  // MNEME_BENCH_MATMUL_ALONE_H_
