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
#include "kernels/cpu/sampler.h"

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
  void Repeat(uint64_t, const std::function<void()>& operations) override { operations(); }
  void Embed(Matrix table, Matrix out) override;
  void ComputeRope(const RopeSpec& rope, Matrix out) override;
  void RotateAndStore(Matrix qkv, const QkvShape& shape, const QkNorm& norm, Matrix rope,
                      const KvLayer& kv) override;
  void Attention(Matrix qkv, const QkvShape& shape, const KvLayer& kv, int64_t window, float scale,
                 Matrix out) override;

  void RotateAndAttend(Matrix qkv, const QkvShape& shape, const QkNorm& norm, Matrix rope,
                       const KvLayer& kv, int64_t window, float scale, Matrix out) override;
  void RmsNorm(Matrix in, const void* weight, float epsilon, Matrix out) override;
  void Linear(Matrix x, const PackedMatrix& weight, const void* bias, bool accumulate,
              Matrix out) override;
  void SwiGlu(Matrix gate_up, Matrix z) override;
  void NormLinear(Matrix x, const RowNorm& norm, const PackedMatrix& weight, const void* bias,
                  Matrix h, Matrix out) override;
  void LinearSwiGlu(Matrix x, const RowNorm& norm, const PackedMatrix& weight, Matrix h,
                    Matrix gate_up, Matrix z) override;
  void DownProjectAndKeep(int64_t wave, int64_t layer, const ChunkRows& rows,
                          const PackedMatrix& w_down, Matrix y) override;

  void DownProject(int64_t wave, int64_t layer, Matrix z, const PackedMatrix& w_down,
                   Matrix y) override;
  void KeepRows(int64_t wave, const ChunkRows& rows) override;
  void UpdateFastWeights(const FastWeightLayer& layer, absl::Span<const ChunkUpdate> updates,
                         ChunkUpdateResult* results) override;
  void ReadDelta(const void* delta, Matrix out) override;
  void TargetLogProbs(Matrix logits, absl::Span<const int32_t> targets, void* out) override;
  void Sample(Matrix logits, void* out) override;

 private:
  // Where one row of the step, not of the padding, stands.
  struct RowPlace {
    const SequenceRows* sequence = nullptr;
    int64_t position = 0;
  };

  // Runs `operation` unless the stream has failed, and latches what it throws.
  void Do(const std::function<void()>& operation);
  // Calls body(row) for `rows` rows of `cols` elements of work.
  void ForRows(int64_t rows, int64_t cols, const std::function<void(int64_t)>& body);
  absl::Span<const ChunkSegment> Wave(int64_t wave) const;
  // Copies those of `rows` that are of `segment` into its chunk's block.
  void Keep(const ChunkSegment& segment, Matrix rows, int64_t offset_bytes);

  int threads_;
  absl::Status status_;
  RowBatch batch_;
  std::vector<RowPlace> places_;
  Matmul matmul_;
  PagedAttention attention_;
  FastWeights fast_weights_;
  std::vector<Sampler> samplers_;  // one for each thread
};

}  // namespace mneme

#endif  // MNEME_KERNELS_CPU_CPU_STREAM_H_
