#ifndef MNEME_KERNELS_CPU_CPU_STREAM_H_
#define MNEME_KERNELS_CPU_CPU_STREAM_H_

#include <cstdint>
#include <functional>
#include <oneapi/dnnl/dnnl.hpp>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/fast_weights.h"
#include "kernels/cpu/matmul.h"

namespace mneme {

// Runs every operation when it is called, on the caller's OpenMP threads.
class CpuStream : public Stream {
 public:
  CpuStream(const dnnl::engine& engine, int threads);

  absl::Status Synchronize() override { return status_; }
  void CopyFromHost(void* device, const void* host, int64_t bytes) override;
  void CopyToHost(void* host, const void* device, int64_t bytes) override;
  void CopyOnDevice(void* to, const void* from, int64_t bytes) override;
  void CopyRows(Matrix from, Matrix to) override;
  void GatherRows(Matrix in, absl::Span<const int32_t> rows, Matrix out) override;

  void BeginStep(const RowBatch& batch) override;
  void Embed(Matrix table, Matrix out) override;
  void ComputeRope(const RopeSpec& rope, Matrix out) override;
  void RotateAndStore(Matrix qkv, const QkvShape& shape, const QkNorm& norm, Matrix rope,
                      const KvLayer& kv) override;
  void Attention(Matrix qkv, const QkvShape& shape, const KvLayer& kv, int64_t window, float scale,
                 Matrix out) override;

  void RmsNorm(Matrix in, const void* weight, float epsilon, Matrix out) override;
  void Linear(Matrix x, const PackedMatrix& weight, const void* bias, bool accumulate,
              Matrix out) override;
  void SwiGlu(Matrix gate_up, Matrix z) override;

  void DownProject(Matrix z, const PackedMatrix& w_down, absl::Span<const DeltaRows> rows,
                   Matrix y) override;
  void UpdateFastWeights(const FastWeightLayer& layer, absl::Span<const ChunkUpdate> updates,
                         ChunkUpdateResult* results) override;
  void TargetLogProbs(Matrix logits, absl::Span<const int32_t> targets, void* out) override;

 private:
  // Where one row of the step stands.
  struct RowPlace {
    const SequenceRows* sequence = nullptr;
    int64_t position = 0;
  };

  // Runs `operation` unless the stream has failed, and latches what it throws.
  void Do(const std::function<void()>& operation);
  // Calls body(row) for `rows` rows of `cols` elements of work.
  void ForRows(int64_t rows, int64_t cols, const std::function<void(int64_t)>& body);

  int threads_;
  absl::Status status_;
  RowBatch batch_;
  std::vector<RowPlace> places_;
  Matmul matmul_;
  PagedAttention attention_;
  FastWeights fast_weights_;
};

}  // namespace mneme

#endif  // MNEME_KERNELS_CPU_CPU_STREAM_H_
