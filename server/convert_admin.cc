#include "server/convert_admin.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "server/convert_status.h"

namespace mneme {
namespace {

constexpr int64_t kDeltaElementBytes = 4;  // ΔW is float32

std::optional<int64_t> SmallestWindow(const ModelConfig& config) {
  std::optional<int64_t> smallest;
  for (const int64_t window : config.windows) {
    if (window > 0) smallest = std::min(window, smallest.value_or(window));
  }
  return smallest;
}

void ToProto(const TttConfig& ttt, const ModelConfig& config, v1::TttInfo* proto) {
  for (const int layer : ttt.layers) proto->add_layers(static_cast<uint32_t>(layer));
  proto->set_chunk_size(static_cast<uint32_t>(ttt.chunk));
  proto->set_learning_rate(static_cast<double>(ttt.learning_rate));
  proto->set_target(ttt.target == TttTarget::kInputEmbed ? "input_embed" : "hidden_states");
  proto->set_has_projection(ttt.projection);
  proto->set_delta_bytes(
      static_cast<uint64_t>(kDeltaElementBytes * config.hidden_size * config.intermediate_size *
                            static_cast<int64_t>(ttt.layers.size())));
}

void ToProto(const GenerationDefaults& defaults, v1::SamplingParams* proto) {
  if (defaults.temperature) proto->set_temperature(*defaults.temperature);
  if (defaults.top_p) proto->set_top_p(*defaults.top_p);
  if (defaults.min_p) proto->set_min_p(*defaults.min_p);
  if (defaults.top_k) proto->set_top_k(static_cast<uint32_t>(std::max(*defaults.top_k, 0)));
  if (defaults.repetition_penalty) proto->set_repetition_penalty(*defaults.repetition_penalty);
}

void AddShape(const ModelConfig& config, v1::GetModelInfoResponse* proto) {
  proto->set_architecture(config.architecture == Architecture::kQwen3 ? "Qwen3ForCausalLM"
                                                                      : "LlamaForCausalLM");
  proto->set_hidden_size(static_cast<uint32_t>(config.hidden_size));
  proto->set_intermediate_size(static_cast<uint32_t>(config.intermediate_size));
  proto->set_layer_count(static_cast<uint32_t>(config.num_layers));
  proto->set_attention_head_count(static_cast<uint32_t>(config.num_heads));
  proto->set_key_value_head_count(static_cast<uint32_t>(config.num_kv_heads));
  proto->set_head_dim(static_cast<uint32_t>(config.head_dim));
  proto->set_vocab_size(static_cast<uint32_t>(config.vocab_size));
  if (config.MaxSessionTokens() != std::numeric_limits<int64_t>::max()) {
    proto->set_context_limit_tokens(static_cast<uint64_t>(config.MaxSessionTokens()));
  }
  if (const auto window = SmallestWindow(config)) {
    proto->set_sliding_window_tokens(static_cast<uint64_t>(*window));
  }
}

}  // namespace

void ToProto(const ModelDescription& model, v1::GetModelInfoResponse* proto) {
  proto->set_name(model.name);
  proto->set_fingerprint(model.fingerprint);
  proto->set_parameter_count(static_cast<uint64_t>(model.parameter_count));
  AddShape(model.config, proto);
  proto->set_dtype(model.dtype);
  proto->set_weight_bytes(static_cast<uint64_t>(model.weight_bytes));
  if (model.config.ttt) ToProto(*model.config.ttt, model.config, proto->mutable_ttt());
  proto->set_has_tokenizer(model.has_tokenizer);
  proto->set_turn_format(model.turn_format);
  if (model.config.bos_token_id) {
    proto->set_bos_token_id(static_cast<uint32_t>(*model.config.bos_token_id));
  }
  const auto& eos = model.defaults.eos_token_ids.empty() ? model.config.eos_token_ids
                                                         : model.defaults.eos_token_ids;
  for (const int32_t id : eos) proto->add_eos_token_ids(static_cast<uint32_t>(id));
  ToProto(model.defaults, proto->mutable_default_sampling());
}

void ToProto(const TenantLoad& load, v1::TenantLoad* proto) {
  proto->set_tenant(load.name);
  proto->set_weight(load.weight);
  proto->set_running_requests(static_cast<uint32_t>(load.running_requests));
  proto->set_waiting_requests(static_cast<uint32_t>(load.waiting_requests));
  proto->set_pending_tokens(static_cast<uint64_t>(load.pending_tokens));
  proto->set_share(load.share);
}

void ToProto(const EngineLoad& load, v1::GetLoadResponse* proto) {
  proto->set_running_requests(static_cast<uint32_t>(load.running_requests));
  proto->set_waiting_requests(static_cast<uint32_t>(load.waiting_requests));
  proto->set_pending_tokens(static_cast<uint64_t>(load.pending_tokens));
  proto->set_waiting_chunks(static_cast<uint64_t>(load.waiting_chunks));
  proto->set_sessions(static_cast<uint64_t>(load.sessions));
  proto->set_active_sessions(static_cast<uint64_t>(load.sessions - load.parked_sessions));
  proto->set_log_pending_batches(static_cast<uint64_t>(load.log_pending_batches));
  proto->set_log_writable(load.log_writable);
  proto->set_queued_requests(static_cast<uint32_t>(load.queued_requests));
  ToProto(load.step_time, proto->mutable_step_time());
  proto->set_step_token_use(load.step_token_use);
  proto->set_step_time_use(load.step_time_use);
  proto->set_requests_per_second(load.requests_per_second);
  proto->set_device_bytes_reserved(static_cast<uint64_t>(load.device_bytes_reserved));
  proto->set_idle_sessions(static_cast<uint64_t>(load.idle_sessions));
  proto->set_idle_bytes(static_cast<uint64_t>(load.idle_bytes));
  for (const TenantLoad& tenant : load.tenants) ToProto(tenant, proto->add_tenants());
  proto->set_device_bytes_used(static_cast<uint64_t>(load.device_bytes_used));
  proto->set_device_bytes_limit(static_cast<uint64_t>(load.device_bytes_limit));
  proto->set_disk_sessions(static_cast<uint64_t>(load.disk_sessions));
  proto->set_disk_bytes_used(static_cast<uint64_t>(load.disk_cache_bytes_used));
  proto->set_disk_bytes_limit(static_cast<uint64_t>(load.disk_cache_bytes_limit));
  proto->set_host_bytes_limit(static_cast<uint64_t>(load.host_cache_bytes_limit));
  proto->set_host_bytes_used(static_cast<uint64_t>(load.host_bytes + load.host_cache_bytes_used));
}

}  // namespace mneme
