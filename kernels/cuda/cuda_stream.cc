#include "kernels/cuda/cuda_stream.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/sample.h"

namespace mneme::cuda {
namespace {

// Copies of at most so many bytes are staged; larger ones take the time that staging saves.
constexpr int64_t kStagedBytes = int64_t{1} << 20;

// Whether copies of the memory are asynchronous as it is.
bool IsPinned(const void* host) {
  cudaPointerAttributes attributes;
  return cudaPointerGetAttributes(&attributes, host) == cudaSuccess &&
         attributes.type == cudaMemoryTypeHost;
}

bool NeedsStaging(const void* host, int64_t bytes) {
  return bytes <= kStagedBytes && !IsPinned(host);
}

const CudaPackedMatrix& Packed(const PackedMatrix& weight) {
  return static_cast<const CudaPackedMatrix&>(weight);
}

}  // namespace

CudaStream::CudaStream(const CudaBackendOptions& options, int num_sms)
    : options_(options), context_{nullptr, &errors_, num_sms} {}

CudaStream::~CudaStream() {
  // What is under way uses the members' memory.
  cudaSetDevice(options_.device);
  cudaStreamSynchronize(stream_.get());
}

absl::StatusOr<std::unique_ptr<Stream>> CudaStream::Create(const CudaBackendOptions& options,
                                                           int num_sms) {
  auto stream = absl::WrapUnique(new CudaStream(options, num_sms));
  MNEME_RETURN_IF_ERROR(stream->Start());
  return stream;
}

absl::Status CudaStream::Start() {
  MNEME_RETURN_IF_ERROR(ToStatus(cudaSetDevice(options_.device), "cudaSetDevice"));
  MNEME_ASSIGN_OR_RETURN(stream_, CreateStreamHandle());
  context_.stream = stream_.get();
  MNEME_ASSIGN_OR_RETURN(staging_, Staging::Create());
  MNEME_ASSIGN_OR_RETURN(step_, Step::Create());
  MNEME_ASSIGN_OR_RETURN(attention_, CreatePagedAttention());
  MNEME_ASSIGN_OR_RETURN(products_, ProductPlans::Create());
  MNEME_ASSIGN_OR_RETURN(updater_, FastWeightUpdater::Create(options_, products_.get()));
  MNEME_ASSIGN_OR_RETURN(skinny_workspace_, AllocateZeroed(SkinnyWorkspaceBytes()));
  MNEME_ASSIGN_OR_RETURN(delta_workspace_, AllocateZeroed(DeltaWorkspaceBytes()));
  return absl::OkStatus();
}

bool CudaStream::Ready() {
  if (errors_.ok()) errors_.Check(cudaSetDevice(options_.device), "cudaSetDevice");
  return errors_.ok();
}

// --- Copies. ---

void CudaStream::Drain() {
  errors_.Check(cudaStreamSynchronize(stream_.get()), "cudaStreamSynchronize");
  if (errors_.ok()) staging_->Finish();
}

absl::Status CudaStream::Synchronize() {
  if (Ready()) Drain();
  return errors_.status();
}

void* CudaStream::Stage(int64_t bytes) {
  void* place = staging_->Take(bytes);
  if (place == nullptr) {
    Drain();
    place = staging_->Take(bytes);
  }
  if (place == nullptr) errors_.Fail(absl::StrCat("there is no staging memory of ", bytes));
  return errors_.ok() ? place : nullptr;
}

void CudaStream::CopyFromHost(void* device, const void* host, int64_t bytes) {
  if (bytes == 0 || !Ready()) return;
  merged_delta_ = nullptr;
  if (NeedsStaging(host, bytes)) {
    void* const staged = Stage(bytes);
    if (staged == nullptr) return;
    std::memcpy(staged, host, static_cast<size_t>(bytes));
    host = staged;
  }
  errors_.Check(cudaMemcpyAsync(device, host, static_cast<size_t>(bytes), cudaMemcpyHostToDevice,
                                stream_.get()),
                "CopyFromHost");
}

void CudaStream::CopyToHost(void* host, const void* device, int64_t bytes) {
  if (bytes == 0 || !Ready()) return;
  if (NeedsStaging(host, bytes)) {
    void* const staged = Stage(bytes);
    if (staged == nullptr) return;
    staging_->DeliverLater(staged, host, bytes);
    host = staged;
  }
  errors_.Check(cudaMemcpyAsync(host, device, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost,
                                stream_.get()),
                "CopyToHost");
}

void CudaStream::CopyOnDevice(void* to, const void* from, int64_t bytes) {
  if (bytes == 0 || !Ready()) return;
  merged_delta_ = nullptr;
  errors_.Check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice,
                                stream_.get()),
                "CopyOnDevice");
}

void CudaStream::CopyRows(Matrix from, Matrix to) {
  if (Ready()) cuda::CopyRows(from, to, context_);
}

const int32_t* CudaStream::IndexList(absl::Span<const int32_t> indices) {
  const auto bytes = static_cast<int64_t>(indices.size() * sizeof(int32_t));
  void* place = nullptr;
  if (capturing_ == nullptr) {
    place = Stage(bytes);
  } else if (auto owned = AllocatePinned(bytes); owned.ok()) {
    place = capturing_->index_lists.emplace_back(*std::move(owned)).get();
  } else {
    errors_.Fail(std::string(owned.status().message()));
  }
  if (place != nullptr) std::memcpy(place, indices.data(), static_cast<size_t>(bytes));
  return static_cast<const int32_t*>(place);
}

void CudaStream::GatherRows(Matrix in, absl::Span<const int32_t> rows, Matrix out) {
  if (rows.empty() || !Ready()) return;
  const int32_t* const list = IndexList(rows);
  if (list != nullptr) cuda::GatherRows(in, list, out, context_);
}

// --- A step. ---

void CudaStream::BeginStep(const RowBatch& batch) {
  batch_ = batch;
  declared_ = false;
  repeatable_ = false;
  last_down_ = {};
  merged_delta_ = nullptr;
}

void CudaStream::DeclareStep() {
  step_->Declare(batch_, page_tokens_, num_ttt_layers_, repeatable_, context_);
  if (errors_.ok()) attention_->BeginStep(*step_, context_);
  declared_ = true;
}

bool CudaStream::StepReady() {
  if (!Ready()) return false;
  if (!declared_) DeclareStep();
  return errors_.ok();
}

bool CudaStream::StepReady(const KvLayer& kv) {
  if (kv.page_tokens != page_tokens_) {
    if (capturing_ != nullptr) errors_.Fail("a repeated step changed the cache's page size");
    page_tokens_ = kv.page_tokens;
    declared_ = false;
  }
  return StepReady();
}

// The first step of a key runs as it is, so that products are tuned and scratch memory has grown;
// the second is recorded.
void CudaStream::Repeat(uint64_t key, const std::function<void()>& operations) {
  if (!Ready()) return;
  const auto [found, first] = recordings_.try_emplace(key);
  Recording& recording = found->second;
  repeatable_ = true;
  declared_ = false;
  if (first) {
    operations();
    recording.page_tokens = page_tokens_;
    return;
  }
  page_tokens_ = recording.page_tokens;
  if (!StepReady()) return;
  if (recording.graph == nullptr) Capture(operations, &recording);
  if (!errors_.ok()) return;
  errors_.Check(cudaGraphLaunch(recording.graph.get(), stream_.get()), "cudaGraphLaunch");
}

void CudaStream::Capture(const std::function<void()>& operations, Recording* recording) {
  errors_.Check(cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeRelaxed),
                "cudaStreamBeginCapture");
  if (!errors_.ok()) return;
  recording->index_lists.clear();
  capturing_ = recording;
  operations();
  capturing_ = nullptr;
  cudaGraph_t captured = nullptr;
  errors_.Check(cudaStreamEndCapture(stream_.get(), &captured), "cudaStreamEndCapture");
  const GraphHandle graph(captured);
  if (!errors_.ok()) return;
  cudaGraphExec_t executable = nullptr;
  errors_.Check(cudaGraphInstantiate(&executable, captured, 0), "cudaGraphInstantiate");
  recording->graph.reset(executable);
}

void CudaStream::Embed(Matrix table, Matrix out) {
  if (StepReady()) cuda::Embed(step_->device_view(), table, out, context_);
}

const double* CudaStream::FrequenciesOnDevice(absl::Span<const double> values) {
  for (const Frequencies& known : frequencies_) {
    if (absl::MakeConstSpan(known.values) == values) {
      return static_cast<const double*>(known.device.get());
    }
  }
  const auto bytes = static_cast<int64_t>(values.size() * sizeof(double));
  absl::StatusOr<DeviceMemory> device = AllocateDevice(bytes);
  if (!device.ok()) {
    errors_.Fail(std::string(device.status().message()));
    return nullptr;
  }
  CopyFromHost(device->get(), values.data(), bytes);
  frequencies_.push_back({{values.begin(), values.end()}, *std::move(device)});
  return static_cast<const double*>(frequencies_.back().device.get());
}

void CudaStream::ComputeRope(const RopeSpec& rope, Matrix out) {
  if (!StepReady()) return;
  const double* const frequencies = FrequenciesOnDevice(rope.inverse_frequencies);
  if (frequencies == nullptr) return;
  cuda::ComputeRope(step_->device_view(), frequencies, rope.attention_factor, out, context_);
}

void CudaStream::RotateAndStore(Matrix qkv, const QkvShape& shape, const QkNorm& norm, Matrix rope,
                                const KvLayer& kv) {
  if (!StepReady(kv)) return;
  cuda::RotateAndStore(step_->device_view(), qkv, shape, norm, rope, kv, context_);
}

void CudaStream::Attention(Matrix qkv, const QkvShape& shape, const KvLayer& kv, int64_t window,
                           float scale, Matrix out) {
  if (!StepReady(kv)) return;
  AttentionShape attention{shape, kv, window, scale};
  attention.kv.data = nullptr;
  attention_->Run(qkv, attention, kv.data, out, context_);
}

void CudaStream::RotateAndAttend(Matrix qkv, const QkvShape& shape, const QkNorm& norm, Matrix rope,
                                 const KvLayer& kv, int64_t window, float scale, Matrix out) {
  if (!StepReady(kv)) return;
  AttentionShape attention{shape, kv, window, scale};
  attention.kv.data = nullptr;
  if (attention_->RotateAndRun(qkv, norm, rope, attention, kv.data, out, context_)) return;
  RotateAndStore(qkv, shape, norm, rope, kv);
  Attention(qkv, shape, kv, window, scale, out);
}

// --- Layers. ---

void CudaStream::RmsNorm(Matrix in, const void* weight, float epsilon, Matrix out) {
  if (Ready()) cuda::RmsNorm(in, weight, epsilon, out, context_);
}

void CudaStream::Multiply(Matrix x, const void* weight, const void* bias, bool accumulate,
                          Matrix out) {
  const SkinnyProduct product = {
      .x = x, .weight = weight, .bias = bias, .accumulate = accumulate, .out = out};
  if (IsSkinny(product)) return RunSkinny(product, skinny_workspace_.get(), context_);
  products_->Run({.a = x.data,
                  .b = weight,
                  .out = out.data,
                  .bias = bias,
                  .m = x.rows,
                  .n = out.cols,
                  .k = x.cols,
                  .a_stride = x.stride,
                  .b_stride = x.cols,
                  .out_stride = out.stride,
                  .dtype = x.dtype,
                  .out_dtype = out.dtype,
                  .beta = accumulate ? 1.0f : 0.0f},
                 context_);
}

void CudaStream::Linear(Matrix x, const PackedMatrix& weight, const void* bias, bool accumulate,
                        Matrix out) {
  if (x.rows == 0 || !Ready()) return;
  MNEME_CHECK(x.dtype == options_.dtype && x.cols == weight.in_features() &&
              out.cols == weight.out_features());
  Multiply(x, Packed(weight).data(), bias, accumulate, out);
}

void CudaStream::SwiGlu(Matrix gate_up, Matrix z) {
  if (Ready()) cuda::SwiGlu(gate_up, z, context_);
}

void CudaStream::NormLinear(Matrix x, const RowNorm& norm, const PackedMatrix& weight,
                            const void* bias, Matrix h, Matrix out) {
  if (x.rows == 0 || !Ready()) return;
  MNEME_CHECK(x.dtype == options_.dtype && x.cols == weight.in_features() &&
              out.cols == weight.out_features());
  const SkinnyProduct product = {
      .x = x, .norm = norm, .h = h, .weight = Packed(weight).data(), .bias = bias, .out = out};
  if (IsSkinny(product)) return RunSkinny(product, skinny_workspace_.get(), context_);
  RmsNorm(x, norm.weight, norm.epsilon, h);
  Multiply(h, product.weight, bias, /*accumulate=*/false, out);
}

void CudaStream::LinearSwiGlu(Matrix x, const RowNorm& norm, const PackedMatrix& weight, Matrix h,
                              Matrix gate_up, Matrix z) {
  if (x.rows == 0 || !Ready()) return;
  MNEME_CHECK(x.dtype == options_.dtype && x.cols == weight.in_features() &&
              gate_up.cols == weight.out_features() && gate_up.cols == 2 * z.cols);
  SkinnyProduct product = {
      .x = x, .norm = norm, .h = h, .weight = Packed(weight).data(), .gated = true, .out = z};
  if (norm.weight != nullptr && !IsSkinny(product)) {
    RmsNorm(x, norm.weight, norm.epsilon, h);
    product.x = h;
    product.norm = {};
  }
  if (IsSkinny(product)) return RunSkinny(product, skinny_workspace_.get(), context_);
  Multiply(product.x, product.weight, /*bias=*/nullptr, /*accumulate=*/false, gate_up);
  SwiGlu(gate_up, z);
}

// --- Ends. ---

void CudaStream::TargetLogProbs(Matrix logits, absl::Span<const int32_t> targets, void* out) {
  if (targets.empty() || !Ready()) return;
  const int32_t* const list = IndexList(targets);
  if (list != nullptr) cuda::TargetLogProbs(logits, list, static_cast<float*>(out), context_);
}

void CudaStream::Sample(Matrix logits, void* out) {
  if (logits.rows == 0 || !StepReady()) return;
  SampleRows(step_->device_view(), logits, static_cast<SampledRow*>(out), context_);
}

}  // namespace mneme::cuda
