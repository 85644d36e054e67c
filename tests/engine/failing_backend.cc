#include "tests/engine/failing_backend.h"

#include <string>
#include <utility>

#include "base/status_macros.h"

namespace mneme {
namespace {

class FailingStream final : public Stream {
 public:
  FailingStream(std::unique_ptr<Stream> inner, const std::atomic<bool>* broken)
      : inner_(std::move(inner)), broken_(broken) {}

  absl::Status Synchronize() override {
    MNEME_RETURN_IF_ERROR(inner_->Synchronize());
    return *broken_ ? absl::InternalError("the device has gone away") : absl::OkStatus();
  }
  void CopyFromHost(void* device, const void* host, int64_t bytes) override {
    inner_->CopyFromHost(device, host, bytes);
  }
  void CopyToHost(void* host, const void* device, int64_t bytes) override {
    inner_->CopyToHost(host, device, bytes);
  }
  void CopyOnDevice(void* to, const void* from, int64_t bytes) override {
    inner_->CopyOnDevice(to, from, bytes);
  }
  void CopyRows(Matrix from, Matrix to) override { inner_->CopyRows(from, to); }
  void GatherRows(Matrix in, absl::Span<const int32_t> rows, Matrix out) override {
    inner_->GatherRows(in, rows, out);
  }
  void BeginStep(const RowBatch& batch) override { inner_->BeginStep(batch); }
  void Embed(Matrix table, Matrix out) override { inner_->Embed(table, out); }
  void ComputeRope(const RopeSpec& rope, Matrix out) override { inner_->ComputeRope(rope, out); }
  void RotateAndStore(Matrix qkv, const QkvShape& shape, const QkNorm& norm, Matrix rope,
                      const KvLayer& kv) override {
    inner_->RotateAndStore(qkv, shape, norm, rope, kv);
  }
  void Attention(Matrix qkv, const QkvShape& shape, const KvLayer& kv, int64_t window, float scale,
                 Matrix out) override {
    inner_->Attention(qkv, shape, kv, window, scale, out);
  }
  void RmsNorm(Matrix in, const void* weight, float epsilon, Matrix out) override {
    inner_->RmsNorm(in, weight, epsilon, out);
  }
  void Linear(Matrix x, const PackedMatrix& weight, const void* bias, bool accumulate,
              Matrix out) override {
    inner_->Linear(x, weight, bias, accumulate, out);
  }
  void SwiGlu(Matrix gate_up, Matrix z) override { inner_->SwiGlu(gate_up, z); }
  void DownProject(Matrix z, const PackedMatrix& w_down, absl::Span<const DeltaRows> rows,
                   Matrix y) override {
    inner_->DownProject(z, w_down, rows, y);
  }
  void UpdateFastWeights(const FastWeightLayer& layer, absl::Span<const ChunkUpdate> updates,
                         ChunkUpdateResult* results) override {
    inner_->UpdateFastWeights(layer, updates, results);
  }
  void TargetLogProbs(Matrix logits, absl::Span<const int32_t> targets, void* out) override {
    inner_->TargetLogProbs(logits, targets, out);
  }

 private:
  const std::unique_ptr<Stream> inner_;
  const std::atomic<bool>* const broken_;
};

class FailingBackend final : public Backend {
 public:
  FailingBackend(std::unique_ptr<Backend> inner, const std::atomic<bool>* broken)
      : inner_(std::move(inner)), broken_(broken) {}

  std::string description() const override { return inner_->description(); }
  DType activation_dtype() const override { return inner_->activation_dtype(); }
  DType kv_dtype() const override { return inner_->kv_dtype(); }
  DType delta_dtype() const override { return inner_->delta_dtype(); }
  absl::StatusOr<DeviceBuffer> Allocate(int64_t bytes) override { return inner_->Allocate(bytes); }
  absl::StatusOr<std::unique_ptr<PackedMatrix>> Pack(absl::Span<const HostTensor> parts) override {
    return inner_->Pack(parts);
  }
  absl::StatusOr<std::unique_ptr<Stream>> CreateStream() override {
    MNEME_ASSIGN_OR_RETURN(std::unique_ptr<Stream> stream, inner_->CreateStream());
    return std::make_unique<FailingStream>(std::move(stream), broken_);
  }

 private:
  const std::unique_ptr<Backend> inner_;
  const std::atomic<bool>* const broken_;
};

}  // namespace

std::unique_ptr<Backend> MakeFailingBackend(std::unique_ptr<Backend> inner,
                                            const std::atomic<bool>* broken) {
  return std::make_unique<FailingBackend>(std::move(inner), broken);
}

}  // namespace mneme
