#include "bench/work.h"

#include <algorithm>

namespace mneme {
namespace {

double Parameters(const PackedMatrix& m) {
  return static_cast<double>(m.out_features()) * static_cast<double>(m.in_features());
}

// Keys that the rows of positions [from, to) see, in all.
double KeysSeen(int64_t from, int64_t to, int64_t window) {
  double keys = 0;
  for (int64_t p = from; p < to; ++p) {
    keys += static_cast<double>(window > 0 ? std::min(p + 1, window) : p + 1);
  }
  return keys;
}

}  // namespace

double Work::FloorMs(const Ceilings& ceilings) const {
  return 1e3 * std::max(bytes / ceilings.bytes_per_second, flops / ceilings.flops_per_second);
}

WorkCounter::WorkCounter(const ModelConfig& config, const ModelWeights& weights,
                         int64_t kv_element_bytes, int64_t delta_read_bytes)
    : config_(config) {
  for (const LayerWeights& layer : weights.layers) {
    for (const auto* m : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down}) {
      layer_weight_bytes_ += static_cast<double>((*m)->size_bytes());
      layer_parameters_ += Parameters(**m);
    }
  }
  head_bytes_ = static_cast<double>(weights.lm_head->size_bytes());
  head_parameters_ = Parameters(*weights.lm_head);
  kv_token_bytes_ = static_cast<double>(2 * config.num_layers * config.num_kv_heads *
                                        config.head_dim * kv_element_bytes);
  if (config.ttt) {
    delta_bytes_ =
        static_cast<double>(config.ttt->layers.size()) * static_cast<double>(delta_read_bytes);
  }
}

Work WorkCounter::DecodeStep(int64_t streams, int64_t context, bool learning) const {
  const auto n = static_cast<double>(streams);
  Work work;
  work.bytes = layer_weight_bytes_ + head_bytes_;
  work.flops = 2 * n * (layer_parameters_ + head_parameters_);
  const double head_work = static_cast<double>(4 * config_.num_heads * config_.head_dim);
  for (const int64_t window : config_.windows) {
    const double keys = KeysSeen(context, context + 1, window);
    work.bytes += n * keys * kv_token_bytes_ / config_.num_layers;
    work.flops += n * keys * head_work;
  }
  if (!learning || !config_.ttt) return work;
  const auto layers = static_cast<double>(config_.ttt->layers.size());
  work.bytes += n * delta_bytes_;
  work.flops += 2 * n * layers * static_cast<double>(config_.hidden_size) *
                static_cast<double>(config_.intermediate_size);
  return work;
}

Work WorkCounter::Prefill(int64_t tokens, int64_t step_tokens, bool learning) const {
  const auto n = static_cast<double>(tokens);
  const int64_t steps = (tokens + step_tokens - 1) / step_tokens;
  Work work;
  work.bytes = static_cast<double>(steps) * layer_weight_bytes_ + n * kv_token_bytes_;
  work.flops = 2 * n * layer_parameters_;
  const double head_work = static_cast<double>(4 * config_.num_heads * config_.head_dim);
  for (const int64_t window : config_.windows) {
    work.flops += KeysSeen(0, tokens, window) * head_work;
  }
  if (!learning || !config_.ttt) return work;
  const int64_t closed = tokens / config_.ttt->chunk;
  const auto chunks = static_cast<double>(closed);
  const auto c = static_cast<double>(config_.ttt->chunk);
  const auto d = static_cast<double>(config_.hidden_size);
  const auto f = static_cast<double>(config_.intermediate_size);
  const auto layers = static_cast<double>(config_.ttt->layers.size());
  const double projection = config_.ttt->projection ? 2 * c * d * d : 0;
  work.flops += chunks * layers * (projection + 2 * c * d * f);
  work.bytes += 2 * chunks * delta_bytes_;
  return work;
}

}  // namespace mneme
