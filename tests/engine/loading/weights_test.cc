#include "engine/loading/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/loading/random_weights.h"
#include "engine/loading/safetensors_checkpoint.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/engine/forwarding_backend.h"
#include "tests/engine/loading/tiny_model.h"

namespace mneme {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Floats = std::vector<float>;

Floats ToFloats(const TensorData& tensor) {
  const DType dtype = tensor.dtype == "F32"   ? DType::kF32
                      : tensor.dtype == "F16" ? DType::kF16
                                              : DType::kBF16;
  Floats values(tensor.bytes.size() / static_cast<size_t>(SizeOf(dtype)));
  ConvertToFloat(tensor.bytes.data(), dtype, static_cast<int64_t>(values.size()), values.data());
  return values;
}

// `matrix` [values.size() / cols, cols], transposed.
Floats Transposed(const Floats& values, size_t cols) {
  const size_t rows = values.size() / cols;
  Floats result(values.size());
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < cols; ++c) result[c * rows + r] = values[r * cols + c];
  }
  return result;
}

Floats Concatenated(const std::vector<Floats>& parts) {
  Floats result;
  for (const Floats& part : parts) result.insert(result.end(), part.begin(), part.end());
  return result;
}

class LoadWeightsTest : public testing::Test {
 protected:
  LoadWeightsTest() : backend_(*CreateCpuBackend({})), stream_(*backend_->CreateStream()) {}

  absl::StatusOr<ModelWeights> LoadDirectory(const std::filesystem::path& model_dir,
                                             const LoadProgress& progress = nullptr) {
    const auto config = LoadModelConfig(model_dir);
    if (!config.ok()) return config.status();
    const auto checkpoint = Checkpoint::Open(model_dir);
    if (!checkpoint.ok()) return checkpoint.status();
    return LoadWeights(*config, *checkpoint, *backend_, progress);
  }
  absl::StatusOr<ModelWeights> Load(const TinyModel& model,
                                    const LoadProgress& progress = nullptr) {
    model.Write(dir_.path());
    return LoadDirectory(dir_.path(), progress);
  }
  // The status of loading a changed model; the good one loads afterwards.
  absl::Status LoadBad(const TinyModel& model) {
    const absl::Status status = Load(model).status();
    EXPECT_EQ(Load(TinyModel()).status(), absl::OkStatus());
    return status;
  }

  Floats Read(const void* device, size_t count) {
    Floats values(count);
    stream_->CopyToHost(values.data(), device, static_cast<int64_t>(count * sizeof(float)));
    EXPECT_EQ(stream_->Synchronize(), absl::OkStatus());
    return values;
  }
  Floats Read(const DeviceBuffer& buffer) {
    return Read(buffer.data(), static_cast<size_t>(buffer.size_bytes()) / sizeof(float));
  }

  // W [out, in] of a packed matrix: the product with the identity is Wᵀ.
  Floats Unpack(const PackedMatrix& packed) {
    const int64_t in = packed.in_features();
    const int64_t out = packed.out_features();
    Floats identity(static_cast<size_t>(in * in));
    for (int64_t i = 0; i < in; ++i) identity[static_cast<size_t>(i * (in + 1))] = 1;
    const DeviceBuffer x = *backend_->Allocate(in * in * 4);
    const DeviceBuffer y = *backend_->Allocate(in * out * 4);
    stream_->CopyFromHost(x.data(), identity.data(), in * in * 4);
    stream_->Linear({x.data(), DType::kF32, in, in, in}, packed, nullptr, false,
                    {y.data(), DType::kF32, in, out, out});
    return Transposed(Read(y.data(), static_cast<size_t>(in * out)), static_cast<size_t>(out));
  }

  TemporaryDirectory dir_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
};

TEST_F(LoadWeightsTest, PutsEveryTensorInItsPlace) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const TinyModel model(dtype);
    const auto of = [&model](const std::string& name) { return ToFloats(model.tensors.at(name)); };
    const auto weights = Load(model);
    ASSERT_TRUE(weights.ok()) << weights.status();
    ASSERT_EQ(weights->layers.size(), 2U);
    const LayerWeights& layer = weights->layers[1];
    const std::string prefix = "model.layers.1.";
    EXPECT_EQ(Read(layer.input_norm), of(prefix + "input_layernorm.weight"));
    EXPECT_EQ(Read(layer.post_norm), of(prefix + "post_attention_layernorm.weight"));
    EXPECT_EQ(Read(layer.q_norm), of(prefix + "self_attn.q_norm.weight"));
    EXPECT_EQ(Read(layer.k_norm), of(prefix + "self_attn.k_norm.weight"));
    EXPECT_EQ(Unpack(*layer.qkv), Concatenated({of(prefix + "self_attn.q_proj.weight"),
                                                of(prefix + "self_attn.k_proj.weight"),
                                                of(prefix + "self_attn.v_proj.weight")}));
    EXPECT_EQ(Unpack(*layer.o), of(prefix + "self_attn.o_proj.weight"));
    EXPECT_EQ(Unpack(*layer.gate_up), Concatenated({of(prefix + "mlp.gate_proj.weight"),
                                                    of(prefix + "mlp.up_proj.weight")}));
    EXPECT_EQ(Unpack(*layer.down), of(prefix + "mlp.down_proj.weight"));
    EXPECT_EQ(Read(layer.ttt_conv), of(prefix + "mlp.ttt_conv.weight"));
    EXPECT_EQ(Unpack(*weights->lm_head), of("lm_head.weight"));
    EXPECT_EQ(Read(weights->final_norm), of("model.norm.weight"));
    EXPECT_EQ(weights->embedding.dtype, dtype);
    EXPECT_EQ(weights->embedding.rows, 16);
    EXPECT_EQ(weights->embedding.cols, 8);
    std::string embedding(model.tensors.at("model.embed_tokens.weight").bytes.size(), '\0');
    stream_->CopyToHost(embedding.data(), weights->embedding.data,
                        static_cast<int64_t>(embedding.size()));
    ASSERT_EQ(stream_->Synchronize(), absl::OkStatus());
    EXPECT_EQ(embedding, model.tensors.at("model.embed_tokens.weight").bytes);
  }
}

TEST_F(LoadWeightsTest, TransposesTheProjectionSoThatLinearGivesCTimesW) {
  const TinyModel model;
  const auto weights = Load(model);
  ASSERT_TRUE(weights.ok()) << weights.status();
  const Floats projection = ToFloats(model.tensors.at("model.layers.1.mlp.ttt_proj.weight"));
  EXPECT_EQ(Unpack(*weights->layers[1].ttt_projection), Transposed(projection, 8));
}

TEST_F(LoadWeightsTest, MeasuresDownNormOfLearningLayersOnly) {
  const TinyModel model;
  const auto weights = Load(model);
  ASSERT_TRUE(weights.ok()) << weights.status();
  double squares = 0;
  for (const float value : ToFloats(model.tensors.at("model.layers.1.mlp.down_proj.weight"))) {
    squares += double{value} * value;
  }
  EXPECT_NEAR(weights->layers[1].down_norm, std::sqrt(squares), 1e-12);
  EXPECT_EQ(weights->layers[0].down_norm, 0);
  EXPECT_EQ(weights->layers[0].ttt_projection, nullptr);
  EXPECT_EQ(weights->layers[0].ttt_conv.data(), nullptr);
}

TEST_F(LoadWeightsTest, ReportsEachLayer) {
  std::vector<std::pair<int, int>> seen;
  ASSERT_TRUE(Load(TinyModel(), [&seen](int done, int all) { seen.emplace_back(done, all); }).ok());
  EXPECT_THAT(seen, ElementsAre(std::pair(1, 2), std::pair(2, 2)));
}

TEST_F(LoadWeightsTest, TiedEmbeddingsAreTheHead) {
  TinyModel model;
  model.config["tie_word_embeddings"] = true;
  model.tensors.erase("lm_head.weight");
  const auto weights = Load(model);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(Unpack(*weights->lm_head), ToFloats(model.tensors.at("model.embed_tokens.weight")));
}

TEST_F(LoadWeightsTest, ALlamaNeedsNoHeadNorms) {
  TinyModel model;
  model.config["architectures"] = {"LlamaForCausalLM"};
  for (const char* layer : {"0", "1"}) {
    model.tensors.erase(std::string("model.layers.") + layer + ".self_attn.q_norm.weight");
    model.tensors.erase(std::string("model.layers.") + layer + ".self_attn.k_norm.weight");
  }
  const auto weights = Load(model);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(weights->layers[0].q_norm.data(), nullptr);
}

TEST_F(LoadWeightsTest, NamesEachMissingTensor) {
  for (const auto& [name, tensor] : TinyModel().tensors) {
    TinyModel model;
    model.tensors.erase(name);
    const absl::Status status = Load(model).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << name;
    EXPECT_THAT(std::string(status.message()), HasSubstr("\"" + name + "\""));
  }
  EXPECT_TRUE(Load(TinyModel()).ok());
}

TEST_F(LoadWeightsTest, NamesEachTensorOfAWrongShape) {
  for (const auto& [name, tensor] : TinyModel().tensors) {
    TinyModel model;
    TensorData& changed = model.tensors[name];
    changed.shape.insert(changed.shape.begin(), 1);  // the same bytes
    const absl::Status status = Load(model).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("\"" + name + "\""), HasSubstr("[1, "), HasSubstr("shape")));
  }
  EXPECT_TRUE(Load(TinyModel()).ok());
}

TEST_F(LoadWeightsTest, NamesATensorWithValuesThatAreNotFinite) {
  for (const float value :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    TinyModel model;
    std::string& bytes = model.tensors["model.layers.0.mlp.up_proj.weight"].bytes;
    std::memcpy(bytes.data() + bytes.size() - sizeof(value), &value, sizeof(value));
    const absl::Status status = LoadBad(model);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("model.layers.0.mlp.up_proj.weight"), HasSubstr("not finite")));
  }
  for (const auto& [dtype, infinity] :
       {std::pair(DType::kF16, "\x00\x7c"), std::pair(DType::kBF16, "\x80\x7f")}) {
    TinyModel model(dtype);
    model.tensors["model.norm.weight"].bytes.replace(0, 2, infinity, 2);
    EXPECT_EQ(LoadBad(model).code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST_F(LoadWeightsTest, RefusesIntegerTensors) {
  TinyModel model;
  model.tensors["model.norm.weight"].dtype = "I32";
  const absl::Status status = LoadBad(model);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("model.norm.weight"));
}

// Computes less than a CPU does.
class NarrowBackend final : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  BackendLimits limits() const override { return {.head_dim = 8, .vocab_size = 100}; }
};

TEST_F(LoadWeightsTest, WhatTheBackendCannotComputeIsUnimplemented) {
  backend_ = std::make_unique<NarrowBackend>(std::move(backend_));
  const absl::Status status = LoadDirectory("tests/golden/qwen3-hidden-target").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("head_dim is 16"), HasSubstr("cpu"), HasSubstr("up to 8")));
}

TEST_F(LoadWeightsTest, LoadsTheGoldenModels) {
  for (const char* name :
       {"llama-input-target", "qwen3-bf16-sharded", "qwen3-hidden-target", "qwen3-window-yarn"}) {
    const auto weights = LoadDirectory(std::filesystem::path("tests/golden") / name);
    ASSERT_TRUE(weights.ok()) << name << ": " << weights.status();
    EXPECT_EQ(weights->layers.size(), 4U);
    const bool yarn = std::string(name) == "qwen3-window-yarn";
    EXPECT_EQ(weights->layers[0].qkv_bias.size_bytes(), yarn ? 128 * 4 : 0);
    EXPECT_EQ(weights->layers[0].o_bias.size_bytes(), yarn ? 64 * 4 : 0);
    EXPECT_EQ(
        weights->layers[0].ttt_projection != nullptr,
        std::string(name) == "llama-input-target" || std::string(name) == "qwen3-hidden-target");
  }
}

TEST_F(LoadWeightsTest, LoadsRandomTensors) {
  auto config = NamedShape("qwen3-0.6b");
  ASSERT_TRUE(config.ok()) << config.status();
  config->num_layers = 1;
  config->vocab_size = 128;
  config->windows.resize(1);
  config->ttt->layers = {0};
  const RandomTensors source(1);
  const auto weights = LoadWeights(*config, source, *backend_);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(weights->layers[0].qkv->out_features(), (16 + 2 * 8) * 128);
  EXPECT_NEAR(weights->layers[0].down_norm, 32, 0.5);  // √(d f / f) = √1024
}

}  // namespace
}  // namespace mneme
