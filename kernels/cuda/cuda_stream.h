#ifndef MNEME_KERNELS_CUDA_CUDA_STREAM_H_
#define MNEME_KERNELS_CUDA_CUDA_STREAM_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/delta.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/memory.h"
#include "kernels/cuda/skinny_product.h"
#include "kernels/cuda/staging.h"
#include "kernels/cuda/step.h"

namespace mneme::cuda {

// A weight as the backend packs it: [out, in], contiguous, in the backend's dtype.
class CudaPackedMatrix : public PackedMatrix {
 public:
  CudaPackedMatrix(DeviceMemory data, DType dtype, int64_t out, int64_t in)
      : data_(std::move(data)), dtype_(dtype), out_(out), in_(in) {}

  int64_t out_features() const override { return out_; }
  int64_t in_features() const override { return in_; }
  int64_t size_bytes() const override { return out_ * in_ * SizeOf(dtype_); }

  const void* data() const { return data_.get(); }
  DType dtype() const { return dtype_; }

 private:
  DeviceMemory data_;
  DType dtype_;
  int64_t out_, in_;
};

// A CUDA stream. All is asynchronous but for copies of much pageable memory and for what is done
// when a shape is seen for the first time.
//
// BeginStep only notes the batch: what the step is sent with depends on whether it is one of
// Repeat, and on the cache's page size. It is sent before the first operation that needs it.
class CudaStream : public Stream {
 public:
  static absl::StatusOr<std::unique_ptr<Stream>> Create(const CudaBackendOptions& options,
                                                        int num_sms);
  ~CudaStream() override;

  absl::Status Synchronize() override;
  void CopyFromHost(void* device, const void* host, int64_t bytes) override;
  void CopyToHost(void* host, const void* device, int64_t bytes) override;
  void CopyOnDevice(void* to, const void* from, int64_t bytes) override;
  void CopyRows(Matrix from, Matrix to) override;
  void GatherRows(Matrix in, absl::Span<const int32_t> rows, Matrix out) override;

  void BeginStep(const RowBatch& batch) override;
  void Repeat(uint64_t key, const std::function<void()>& operations) override;
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
  // What Repeat knows of a key.
  struct Recording {
    int64_t page_tokens = 0;                // of the cache that its operations use
    GraphExecHandle graph;                  // null until the key's second step
    std::vector<PinnedMemory> index_lists;  // that its kernels read
  };
  // RopeSpec::inverse_frequencies on the device.
  struct Frequencies {
    std::vector<double> values;
    DeviceMemory device;
  };

  CudaStream(const CudaBackendOptions& options, int num_sms);
  absl::Status Start();

  // Whether there is anything to do: the stream has not failed. Makes the device this thread's.
  bool Ready();
  // The same, and the step is declared.
  bool StepReady();
  // The same, with pages of the cache's size.
  bool StepReady(const KvLayer& kv);
  void DeclareStep();
  // Waits for the device, delivers what was copied to the host and frees the staging memory.
  void Drain();
  // Pinned memory that stays until the next Synchronize; null if the stream fails.
  void* Stage(int64_t bytes);
  // Pinned memory with these indices, which kernels read: few, and each once.
  const int32_t* IndexList(absl::Span<const int32_t> indices);
  const double* FrequenciesOnDevice(absl::Span<const double> values);

  // Records `operations` as the graph of `recording`.
  void Capture(const std::function<void()>& operations, Recording* recording);

  // out = x Wᵀ + bias (+ out); `weight` [out_features, in_features], contiguous.
  void Multiply(Matrix x, const void* weight, const void* bias, bool accumulate, Matrix out);
  // DownProject; true if the rows of `keep`, which may be null, were kept on the way.
  bool Project(int64_t wave, int64_t layer, Matrix z, const PackedMatrix& w_down, Matrix y,
               const ChunkRows* keep);
  // y += z W_downᵀ for the rows of a wave, those of long segments with ΔW merged into it.
  void MultiplyWave(int64_t wave, int64_t layer, Matrix z, const CudaPackedMatrix& w_down,
                    Matrix y);
  // W_down + ΔW, made now unless merged_ holds it; null if the stream fails.
  const void* Merged(const void* delta, const CudaPackedMatrix& w_down);
  // What the first long segment of the next wave will multiply by, if one of these makes its ΔW.
  DeltaMerge MergeAhead(absl::Span<const ChunkUpdate> updates);
  DeltaLayout LayoutOf(int64_t d, int64_t f) const;

  const CudaBackendOptions options_;
  ErrorLatch errors_;
  StreamHandle stream_;
  LaunchContext context_;

  std::unique_ptr<Staging> staging_;
  std::unique_ptr<Step> step_;
  std::unique_ptr<PagedAttention> attention_;
  std::unique_ptr<ProductPlans> products_;
  std::unique_ptr<FastWeightUpdater> updater_;
  DeviceMemory skinny_workspace_, delta_workspace_;
  Scratch merged_;
  // What merged_ holds; null: nothing. A step long, for who knows what happens to ΔW in between.
  const void* merged_delta_ = nullptr;
  const CudaPackedMatrix* merged_weight_ = nullptr;
  std::vector<Frequencies> frequencies_;

  struct Down {
    int64_t wave = 0, layer = 0;
    const CudaPackedMatrix* weight = nullptr;
  };
  Down last_down_;              // the step's last DownProject
  RowBatch batch_;              // as BeginStep noted it
  bool declared_ = false;       // step_ holds batch_
  bool repeatable_ = false;     // the step is one of Repeat
  int64_t page_tokens_ = 0;     // of the cache that was used last
  int64_t num_ttt_layers_ = 0;  // seen so far
  std::unordered_map<uint64_t, Recording> recordings_;
  Recording* capturing_ = nullptr;  // operations become its graph
};

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_CUDA_STREAM_H_
