#include "tests/engine/loading/tiny_model.h"

#include <cstdint>
#include <random>
#include <vector>

namespace mneme {
namespace {

constexpr int64_t kHidden = 8;
constexpr int64_t kIntermediate = 12;
constexpr int64_t kHeadDim = 4;
constexpr int64_t kVocabulary = 16;

class TensorMaker {
 public:
  TensorMaker(DType dtype, std::map<std::string, TensorData>& tensors)
      : dtype_(dtype), tensors_(tensors) {}

  void Add(const std::string& name, const std::vector<int64_t>& shape) {
    int64_t count = 1;
    for (const int64_t dimension : shape) count *= dimension;
    std::vector<float> values(static_cast<size_t>(count));
    // Eighths are exact in every dtype and the same with every standard library.
    for (float& value : values) value = static_cast<float>(random_() % 17) / 8.0F - 1.0F;
    tensors_[name] = MakeTensor(dtype_, shape, values);
  }

 private:
  DType dtype_;
  std::map<std::string, TensorData>& tensors_;
  std::mt19937 random_{20260406};
};

void AddLayer(const std::string& prefix, TensorMaker& maker) {
  maker.Add(prefix + "input_layernorm.weight", {kHidden});
  maker.Add(prefix + "post_attention_layernorm.weight", {kHidden});
  maker.Add(prefix + "self_attn.q_proj.weight", {2 * kHeadDim, kHidden});
  maker.Add(prefix + "self_attn.k_proj.weight", {kHeadDim, kHidden});
  maker.Add(prefix + "self_attn.v_proj.weight", {kHeadDim, kHidden});
  maker.Add(prefix + "self_attn.o_proj.weight", {kHidden, 2 * kHeadDim});
  maker.Add(prefix + "self_attn.q_norm.weight", {kHeadDim});
  maker.Add(prefix + "self_attn.k_norm.weight", {kHeadDim});
  maker.Add(prefix + "mlp.gate_proj.weight", {kIntermediate, kHidden});
  maker.Add(prefix + "mlp.up_proj.weight", {kIntermediate, kHidden});
  maker.Add(prefix + "mlp.down_proj.weight", {kHidden, kIntermediate});
}

}  // namespace

TinyModel::TinyModel(DType dtype)
    : config({{"architectures", {"Qwen3ForCausalLM"}},
              {"model_type", "qwen3"},
              {"vocab_size", kVocabulary},
              {"hidden_size", kHidden},
              {"intermediate_size", kIntermediate},
              {"num_hidden_layers", 2},
              {"num_attention_heads", 2},
              {"num_key_value_heads", 1},
              {"head_dim", kHeadDim},
              {"hidden_act", "silu"},
              {"rms_norm_eps", 1e-6},
              {"rope_theta", 10000.0},
              {"max_position_embeddings", 256},
              {"tie_word_embeddings", false},
              {"attention_bias", false},
              {"eos_token_id", 2},
              {"ttt_mode", true},
              {"ttt_layers", {1, 6}},
              {"ttt_chunk", 4},
              {"ttt_lr", 0.01},
              {"ttt_proj", true},
              {"ttt_target", "hidden_states"}}) {
  TensorMaker maker(dtype, tensors);
  maker.Add("model.embed_tokens.weight", {kVocabulary, kHidden});
  maker.Add("model.norm.weight", {kHidden});
  maker.Add("lm_head.weight", {kVocabulary, kHidden});
  AddLayer("model.layers.0.", maker);
  AddLayer("model.layers.1.", maker);
  maker.Add("model.layers.1.mlp.ttt_conv.weight", {kHidden, 1, 5});
  maker.Add("model.layers.1.mlp.ttt_proj.weight", {kHidden, kHidden});
}

void TinyModel::Write(const std::filesystem::path& model_dir) const {
  WriteFile(model_dir / "config.json", config.dump(2));
  WriteFile(model_dir / "model.safetensors", SafetensorsBytes(tensors));
}

}  // namespace mneme
