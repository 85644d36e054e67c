#include "bench/matmul_alone.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/status/status.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace mneme {
namespace {

// Small numbers: sums over any of the shapes stay finite, and none is subnormal.
std::vector<float> RandomFloats(int64_t count) {
  std::minstd_rand random(1);
  std::uniform_real_distribution<float> uniform(-0.01F, 0.01F);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = uniform(random);
  return values;
}

absl::StatusOr<std::unique_ptr<PackedMatrix>> PackRandom(Backend& backend, int64_t out,
                                                         int64_t in) {
  const std::vector<float> values = RandomFloats(out * in);
  const HostTensor part = {values.data(), DType::kF32, out, in};
  return backend.Pack({&part, 1});
}

}  // namespace

absl::StatusOr<std::unique_ptr<MatmulAlone>> MatmulAlone::Create(const ModelConfig& config,
                                                                 const ModelWeights& weights,
                                                                 Backend& backend,
                                                                 int64_t step_tokens) {
  std::unique_ptr<MatmulAlone> alone(new MatmulAlone(config, weights));
  MNEME_RETURN_IF_ERROR(alone->Allocate(backend, step_tokens));
  MNEME_RETURN_IF_ERROR(alone->PackStandIns(backend));
  return alone;
}

absl::Status MatmulAlone::Allocate(Backend& backend, int64_t step_tokens) {
  MNEME_CHECK(backend.activation_dtype() == DType::kF32);
  const LayerWeights& layer = weights_.layers[0];
  int64_t input_floats = 0;
  int64_t output_floats = weights_.lm_head->out_features();
  for (const auto* weight : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down}) {
    input_floats = std::max(input_floats, step_tokens * (*weight)->in_features());
    output_floats = std::max(output_floats, step_tokens * (*weight)->out_features());
  }
  if (config_.ttt) {
    input_floats = std::max(input_floats, config_.ttt->chunk * config_.hidden_size);
    output_floats = std::max({output_floats, config_.ttt->chunk * config_.hidden_size,
                              config_.hidden_size * config_.intermediate_size});
  }
  MNEME_ASSIGN_OR_RETURN(stream_, backend.CreateStream());
  MNEME_ASSIGN_OR_RETURN(input_, backend.Allocate(input_floats * SizeOf(DType::kF32)));
  MNEME_ASSIGN_OR_RETURN(output_, backend.Allocate(output_floats * SizeOf(DType::kF32)));
  const std::vector<float> values = RandomFloats(std::max(input_floats, output_floats));
  stream_->CopyFromHost(input_.data(), values.data(), input_.size_bytes());
  stream_->CopyFromHost(output_.data(), values.data(), output_.size_bytes());
  return stream_->Synchronize();
}

absl::Status MatmulAlone::PackStandIns(Backend& backend) {
  if (!config_.ttt) return absl::OkStatus();
  for (size_t i = 0; i < config_.ttt->layers.size(); ++i) {
    MNEME_ASSIGN_OR_RETURN(auto delta,
                           PackRandom(backend, config_.hidden_size, config_.intermediate_size));
    deltas_.push_back(std::move(delta));
  }
  MNEME_ASSIGN_OR_RETURN(z_, PackRandom(backend, config_.intermediate_size, config_.ttt->chunk));
  return absl::OkStatus();
}

absl::StatusOr<MatmulAlone::Step> MatmulAlone::Run(int64_t rows, int64_t position, bool logits,
                                                   bool learning) {
  const Stopwatch stopwatch;
  gigaflops_ = 0;
  size_t ttt_index = 0;
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    const LayerWeights& layer = weights_.layers[i];
    Multiply(rows, *layer.qkv, false);
    Multiply(rows, *layer.o, true);
    Multiply(rows, *layer.gate_up, false);
    Multiply(rows, *layer.down, true);
    if (!learning || ttt_index == deltas_.size()) continue;
    if (config_.ttt->layers[ttt_index] != static_cast<int>(i)) continue;
    RunLearning(layer, *deltas_[ttt_index++], rows, position);
  }
  if (logits) Multiply(1, *weights_.lm_head, false);
  MNEME_RETURN_IF_ERROR(stream_->Synchronize());
  return Step{stopwatch.Elapsed(), gigaflops_};
}

void MatmulAlone::RunLearning(const LayerWeights& layer, const PackedMatrix& delta, int64_t rows,
                              int64_t position) {
  const int64_t chunk = config_.ttt->chunk;
  const int64_t end = position + rows;
  while (position < end) {
    const int64_t chunk_end = (position / chunk + 1) * chunk;
    const int64_t count = std::min(chunk_end, end) - position;
    if (position >= chunk) Multiply(count, delta, true);
    position += count;
    if (position < chunk_end) continue;
    if (layer.ttt_projection != nullptr) Multiply(chunk, *layer.ttt_projection, false);
    Multiply(config_.hidden_size, *z_, false);
  }
}

void MatmulAlone::Multiply(int64_t rows, const PackedMatrix& weight, bool accumulate) {
  const int64_t in = weight.in_features(), out = weight.out_features();
  stream_->Linear({input_.data(), DType::kF32, rows, in, in}, weight, /*bias=*/nullptr, accumulate,
                  {output_.data(), DType::kF32, rows, out, out});
  gigaflops_ += 2e-9 * static_cast<double>(rows) * static_cast<double>(in * out);
}

}  // namespace mneme
