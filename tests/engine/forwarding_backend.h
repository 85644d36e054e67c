#ifndef MNEME_TESTS_ENGINE_FORWARDING_BACKEND_H_
#define MNEME_TESTS_ENGINE_FORWARDING_BACKEND_H_

// A backend and a stream that pass everything on, for tests to override some of it.

#include <memory>
#include <string>
#include <utility>

#include "kernels/backend.h"

namespace mneme {

class ForwardingStream : public Stream {
 public:
  explicit ForwardingStream(std::unique_ptr<Stream> inner) : inner_(std::move(inner)) {}

  absl::Status Synchronize() override { return inner_->Synchronize(); }
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
  void Repeat(uint64_t key, const std::function<void()>& operations) override {
    inner_->Repeat(key, operations);
  }
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
  void RotateAndAttend(Matrix qkv, const QkvShape& shape, const QkNorm& norm, Matrix rope,
                       const KvLayer& kv, int64_t window, float scale, Matrix out) override {
    inner_->RotateAndAttend(qkv, shape, norm, rope, kv, window, scale, out);
  }
  void RmsNorm(Matrix in, const void* weight, float epsilon, Matrix out) override {
    inner_->RmsNorm(in, weight, epsilon, out);
  }
  void Linear(Matrix x, const PackedMatrix& weight, const void* bias, bool accumulate,
              Matrix out) override {
    inner_->Linear(x, weight, bias, accumulate, out);
  }
  void SwiGlu(Matrix gate_up, Matrix z) override { inner_->SwiGlu(gate_up, z); }
  void NormLinear(Matrix x, const RowNorm& norm, const PackedMatrix& weight, const void* bias,
                  Matrix h, Matrix out) override {
    inner_->NormLinear(x, norm, weight, bias, h, out);
  }
  void LinearSwiGlu(Matrix x, const RowNorm& norm, const PackedMatrix& weight, Matrix h,
                    Matrix gate_up, Matrix z) override {
    inner_->LinearSwiGlu(x, norm, weight, h, gate_up, z);
  }
  void DownProjectAndKeep(int64_t wave, int64_t layer, const ChunkRows& rows,
                          const PackedMatrix& w_down, Matrix y) override {
    inner_->DownProjectAndKeep(wave, layer, rows, w_down, y);
  }
  void DownProject(int64_t wave, int64_t layer, Matrix z, const PackedMatrix& w_down,
                   Matrix y) override {
    inner_->DownProject(wave, layer, z, w_down, y);
  }
  void KeepRows(int64_t wave, const ChunkRows& rows) override { inner_->KeepRows(wave, rows); }
  void UpdateFastWeights(const FastWeightLayer& layer, absl::Span<const ChunkUpdate> updates,
                         ChunkUpdateResult* results) override {
    inner_->UpdateFastWeights(layer, updates, results);
  }
  void ReadDelta(const void* delta, Matrix out) override { inner_->ReadDelta(delta, out); }
  void TargetLogProbs(Matrix logits, absl::Span<const int32_t> targets, void* out) override {
    inner_->TargetLogProbs(logits, targets, out);
  }
  void Sample(Matrix logits, void* out) override { inner_->Sample(logits, out); }

 private:
  const std::unique_ptr<Stream> inner_;
};

class ForwardingBackend : public Backend {
 public:
  explicit ForwardingBackend(std::unique_ptr<Backend> inner) : inner_(std::move(inner)) {}

  std::string description() const override { return inner_->description(); }
  DType activation_dtype() const override { return inner_->activation_dtype(); }
  DType kv_dtype() const override { return inner_->kv_dtype(); }
  BackendLimits limits() const override { return inner_->limits(); }
  int64_t DeltaBytes(int64_t d, int64_t f) const override { return inner_->DeltaBytes(d, f); }
  bool commits_on_touch() const override { return inner_->commits_on_touch(); }
  int64_t FreeBytes() const override { return inner_->FreeBytes(); }
  int64_t RepeatableRows(int64_t rows) const override { return inner_->RepeatableRows(rows); }
  absl::StatusOr<DeviceBuffer> Allocate(int64_t bytes) override { return inner_->Allocate(bytes); }
  absl::StatusOr<DeviceBuffer> AllocateHost(int64_t bytes) override {
    return inner_->AllocateHost(bytes);
  }
  absl::StatusOr<std::unique_ptr<PackedMatrix>> Pack(absl::Span<const HostTensor> parts) override {
    return inner_->Pack(parts);
  }
  absl::StatusOr<std::unique_ptr<Stream>> CreateStream() override { return inner_->CreateStream(); }

 private:
  const std::unique_ptr<Backend> inner_;
};

// A device of which any pool may take as much as a test's limit allows, as of a CPU's memory.
class UndividedDevice : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  bool commits_on_touch() const override { return true; }
};

}  // namespace mneme

#endif  // MNEME_TESTS_ENGINE_FORWARDING_BACKEND_H_
