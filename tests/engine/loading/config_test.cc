#include "engine/loading/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "tests/engine/loading/tiny_model.h"

namespace mneme {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

// The tiny model's configuration with the keys of `changes` replaced.
std::string Changed(const std::string& changes) {
  nlohmann::json config = TinyModel().config;
  config.update(nlohmann::json::parse(changes));
  return config.dump();
}

ModelConfig Parsed(const std::string& changes, int64_t sliding_window = 0) {
  const auto config = ParseModelConfig(Changed(changes), sliding_window);
  EXPECT_TRUE(config.ok()) << changes << ": " << config.status();
  return config.value_or(ModelConfig());
}

TEST(ModelConfigTest, ReadsEveryKey) {
  const ModelConfig config = Parsed(R"({"attention_bias": true, "rms_norm_eps": 1e-5})");
  EXPECT_EQ(config.architecture, Architecture::kQwen3);
  EXPECT_EQ(config.vocab_size, 16);
  EXPECT_EQ(config.hidden_size, 8);
  EXPECT_EQ(config.intermediate_size, 12);
  EXPECT_EQ(config.num_layers, 2);
  EXPECT_EQ(config.num_heads, 2);
  EXPECT_EQ(config.num_kv_heads, 1);
  EXPECT_EQ(config.head_dim, 4);
  EXPECT_EQ(config.rms_norm_eps, 1e-5F);
  EXPECT_EQ(config.max_position_embeddings, 256);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_TRUE(config.attention_bias);
  EXPECT_THAT(config.windows, ElementsAre(0, 0));
  EXPECT_EQ(config.MaxSessionTokens(), 256);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(2));
  EXPECT_EQ(config.bos_token_id, std::nullopt);
  ASSERT_TRUE(config.ttt.has_value());
  EXPECT_THAT(config.ttt->layers, ElementsAre(1));
  EXPECT_EQ(config.ttt->chunk, 4);
  EXPECT_EQ(config.ttt->learning_rate, 0.01F);
  EXPECT_TRUE(config.ttt->projection);
  EXPECT_EQ(config.ttt->target, TttTarget::kHiddenStates);
}

TEST(ModelConfigTest, AppliesDefaults) {
  const auto config = ParseModelConfig(
      R"({"model_type": "llama", "vocab_size": 10, "hidden_size": 32, "intermediate_size": 8,
          "num_hidden_layers": 20, "num_attention_heads": 4, "max_position_embeddings": 64,
          "dtype": "bfloat16", "head_dim": null, "ttt_mode": true})");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->architecture, Architecture::kLlama);
  EXPECT_EQ(config->num_kv_heads, 4);
  EXPECT_EQ(config->head_dim, 8);
  EXPECT_EQ(config->rope.theta, 10000);
  EXPECT_FALSE(config->tie_word_embeddings);
  EXPECT_THAT(config->eos_token_ids, IsEmpty());
  ASSERT_TRUE(config->ttt.has_value());
  EXPECT_THAT(config->ttt->layers, ElementsAre(0, 6, 12, 18));
  EXPECT_EQ(config->ttt->chunk, 8192);
  EXPECT_EQ(config->ttt->learning_rate, 0.3F);
  EXPECT_TRUE(config->ttt->projection);
}

TEST(ModelConfigTest, TakesSeveralEndTokens) {
  const ModelConfig config = Parsed(R"({"eos_token_id": [3, 5], "bos_token_id": 1})");
  EXPECT_THAT(config.eos_token_ids, ElementsAre(3, 5));
  EXPECT_EQ(config.bos_token_id, 1);
  EXPECT_THAT(Parsed(R"({"eos_token_id": null})").eos_token_ids, IsEmpty());
}

TEST(ModelConfigTest, SortsTttLayersAndIgnoresThoseThatDoNotExist) {
  EXPECT_THAT(Parsed(R"({"ttt_layers": [30, 1, 0, 1, 2]})").ttt->layers, ElementsAre(0, 1));
}

TEST(ModelConfigTest, IsAnOrdinaryModelWithoutTtt) {
  for (const char* changes :
       {R"({"ttt_mode": false})", R"({"ttt_mode": null})",
        R"({"ttt_mode": true, "ttt_layers": []})", R"({"ttt_mode": true, "ttt_layers": [2, 6]})"}) {
    EXPECT_FALSE(Parsed(changes).ttt.has_value()) << changes;
  }
}

TEST(ModelConfigTest, PlacesWindowsByLayerTypesOrMaxWindowLayers) {
  EXPECT_THAT(Parsed(R"({"sliding_window": 12})").windows, Each(0));
  EXPECT_THAT(Parsed(R"({"use_sliding_window": false, "sliding_window": 12,
                         "max_window_layers": 0})")
                  .windows,
              Each(0));
  EXPECT_THAT(
      Parsed(R"({"use_sliding_window": true, "sliding_window": 12, "max_window_layers": 1})")
          .windows,
      ElementsAre(0, 12));
  const ModelConfig types =
      Parsed(R"({"sliding_window": 12, "layer_types": ["sliding_attention", "full_attention"]})");
  EXPECT_THAT(types.windows, ElementsAre(12, 0));
  EXPECT_EQ(types.MaxSessionTokens(), 256);
  EXPECT_EQ(Parsed(R"({"sliding_window": 12, "layer_types":
                       ["sliding_attention", "sliding_attention"]})")
                .MaxSessionTokens(),
            INT64_MAX);
  EXPECT_THAT(Parsed(R"({"sliding_window": null, "layer_types":
                         ["full_attention", "full_attention"]})")
                  .windows,
              Each(0));
}

TEST(ModelConfigTest, OverridesTheWindowOfEveryLayer) {
  const ModelConfig config = Parsed("{}", 9);
  EXPECT_THAT(config.windows, ElementsAre(9, 9));
  EXPECT_EQ(config.MaxSessionTokens(), INT64_MAX);
  EXPECT_EQ(ParseModelConfig(Changed("{}"), -1).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ModelConfigTest, NamesWhatIsNotImplemented) {
  for (const auto& [changes, culprit] : std::vector<std::pair<std::string, std::string>>{
           {R"({"architectures": ["GPT2LMHeadModel"]})", "GPT2LMHeadModel"},
           {R"({"architectures": null, "model_type": "gpt2"})", "gpt2"},
           {R"({"architectures": null, "model_type": null})", "architecture"},
           {R"({"hidden_act": "gelu"})", "hidden_act"},
           {R"({"mlp_bias": true})", "mlp_bias"},
           {R"({"num_experts": 128})", "num_experts"},
           {R"({"num_local_experts": 8})", "num_local_experts"},
           {R"({"quantization_config": {}})", "quantization_config"},
           {R"({"layer_types": ["full_attention", "linear_attention"]})", "linear_attention"}}) {
    const auto config = ParseModelConfig(Changed(changes));
    EXPECT_EQ(config.status().code(), absl::StatusCode::kUnimplemented) << changes;
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(culprit));
  }
}

TEST(ModelConfigTest, RefusesMeaninglessValuesAndNamesTheKey) {
  const std::vector<std::pair<std::string, std::string>> bad = {
      {R"({"vocab_size": null})", "vocab_size"},
      {R"({"vocab_size": 0})", "vocab_size"},
      {R"({"vocab_size": 10000001})", "vocab_size"},
      {R"({"hidden_size": -8})", "hidden_size"},
      {R"({"hidden_size": 8.0})", "hidden_size"},
      {R"({"hidden_size": "8"})", "hidden_size"},
      {R"({"intermediate_size": 18446744073709551615})", "intermediate_size"},
      {R"({"num_hidden_layers": 0})", "num_hidden_layers"},
      {R"({"num_hidden_layers": 1001})", "num_hidden_layers"},
      {R"({"num_attention_heads": 0})", "num_attention_heads"},
      {R"({"num_key_value_heads": 0})", "num_key_value_heads"},
      {R"({"num_attention_heads": 3, "num_key_value_heads": 2})", "num_attention_heads"},
      {R"({"head_dim": 0})", "head_dim"},
      {R"({"head_dim": 5})", "head_dim"},
      {R"({"head_dim": null, "num_attention_heads": 3})", "hidden_size"},
      {R"({"head_dim": null, "num_attention_heads": 8})", "head_dim"},
      {R"({"head_dim": null, "num_attention_heads": 16})", "hidden_size"},
      {R"({"max_position_embeddings": 0})", "max_position_embeddings"},
      {R"({"rms_norm_eps": -1e-6})", "rms_norm_eps"},
      {R"({"tie_word_embeddings": 1})", "tie_word_embeddings"},
      {R"({"architectures": "Qwen3ForCausalLM"})", "architectures"},
      {R"({"architectures": {"a": "Qwen3ForCausalLM"}})", "architectures"},
      {R"({"eos_token_id": -1})", "eos_token_id"},
      {R"({"eos_token_id": [1, "2"]})", "eos_token_id"},
      {R"({"bos_token_id": 16})", "bos_token_id"},
      {R"({"use_sliding_window": true, "sliding_window": null})", "sliding_window"},
      {R"({"use_sliding_window": true, "sliding_window": 0})", "sliding_window"},
      {R"({"use_sliding_window": true, "sliding_window": 4, "max_window_layers": -1})",
       "max_window_layers"},
      {R"({"layer_types": ["full_attention"]})", "layer_types"},
      {R"({"layer_types": ["full_attention", 7]})", "layer_types"},
      {R"({"layer_types": ["full_attention", "sliding_attention"]})", "sliding_window"},
      {R"({"ttt_mode": "yes"})", "ttt_mode"},
      {R"({"ttt_layers": [-1, 0]})", "ttt_layers"},
      {R"({"ttt_layers": [0.5]})", "ttt_layers"},
      {R"({"ttt_chunk": 0})", "ttt_chunk"},
      {R"({"ttt_chunk": -4})", "ttt_chunk"},
      {R"({"ttt_lr": -0.1})", "ttt_lr"},
      {R"({"ttt_lr": 1e39})", "ttt_lr"},
      {R"({"ttt_lr": "0.3"})", "ttt_lr"},
      {R"({"ttt_proj": 1})", "ttt_proj"},
      {R"({"ttt_target": "logits"})", "ttt_target"}};
  for (const auto& [changes, culprit] : bad) {
    const auto config = ParseModelConfig(Changed(changes));
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << changes;
    EXPECT_THAT(std::string(config.status().message()), HasSubstr("\"" + culprit + "\""))
        << changes;
  }
}

TEST(ModelConfigTest, RefusesWhatIsNoJsonObject) {
  const std::string good = Changed("{}");
  ASSERT_TRUE(ParseModelConfig(good).ok());
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_EQ(ParseModelConfig(good.substr(0, size)).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  for (const std::string& text :
       {std::string("[]"), std::string("null"), std::string(R"({"ttt_lr": NaN})"),
        std::string(R"({"ttt_lr": Infinity})"), std::string(R"({"ttt_lr": 1e999})"),
        std::string(1'000'000, '['), std::string(2'000'000, ' ')}) {
    EXPECT_EQ(ParseModelConfig(text).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(LoadModelConfigTest, NamesTheFile) {
  const TemporaryDirectory dir;
  EXPECT_EQ(LoadModelConfig(dir.path()).status().code(), absl::StatusCode::kNotFound);
  TinyModel model;
  model.config["ttt_chunk"] = 0;
  model.Write(dir.path());
  const absl::Status status = LoadModelConfig(dir.path()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              AllOf(StartsWith((dir.path() / "config.json").string()), HasSubstr("ttt_chunk")));
  TinyModel().Write(dir.path());
  EXPECT_TRUE(LoadModelConfig(dir.path()).ok());
}

TEST(LoadModelConfigTest, ReadsTheGoldenModels) {
  const auto llama = LoadModelConfig("tests/golden/llama-input-target");
  ASSERT_TRUE(llama.ok()) << llama.status();
  EXPECT_EQ(llama->architecture, Architecture::kLlama);
  EXPECT_EQ(llama->rope.kind, RopeKind::kLlama3);
  EXPECT_EQ(llama->ttt->target, TttTarget::kInputEmbed);
  EXPECT_THAT(llama->ttt->layers, ElementsAre(0, 1, 3));
  const auto yarn = LoadModelConfig("tests/golden/qwen3-window-yarn");
  ASSERT_TRUE(yarn.ok()) << yarn.status();
  EXPECT_EQ(yarn->rope.kind, RopeKind::kYarn);
  EXPECT_THAT(yarn->windows, ElementsAre(0, 12, 12, 12));
  EXPECT_TRUE(yarn->tie_word_embeddings);
  EXPECT_TRUE(yarn->attention_bias);
  EXPECT_FALSE(yarn->ttt->projection);
}

}  // namespace
}  // namespace mneme
