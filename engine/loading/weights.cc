#include "engine/loading/weights.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace mneme {
namespace {

constexpr int64_t kBlock = 4096;  // elements checked at a time
constexpr int64_t kTile = 32;     // rows and columns transposed at a time

// Whether no element is infinite or NaN: whether no exponent has all bits set.
template <typename Bits>
bool ExponentsBelow(const void* data, int64_t count, Bits all_ones) {
  std::array<Bits, kBlock> block;  // the tensor may be unaligned
  for (int64_t first = 0; first < count; first += kBlock) {
    const int64_t size = std::min(kBlock, count - first);
    std::memcpy(block.data(), static_cast<const Bits*>(data) + first,
                static_cast<size_t>(size) * sizeof(Bits));
    bool found = false;
    for (int64_t i = 0; i < size; ++i) {
      found |= (block[static_cast<size_t>(i)] & all_ones) == all_ones;
    }
    if (found) return false;
  }
  return true;
}

bool IsFinite(const HostTensor& tensor) {
  const int64_t count = tensor.rows * tensor.cols;
  switch (tensor.dtype) {
    case DType::kF32:
      return ExponentsBelow<uint32_t>(tensor.data, count, 0x7f800000U);
    case DType::kF16:
      return ExponentsBelow<uint16_t>(tensor.data, count, 0x7c00);
    case DType::kBF16:
      return ExponentsBelow<uint16_t>(tensor.data, count, 0x7f80);
  }
  return false;
}

double FrobeniusNorm(const HostTensor& tensor) {
  std::vector<float> row(static_cast<size_t>(tensor.cols));
  double sum = 0;
  for (int64_t r = 0; r < tensor.rows; ++r) {
    const char* source =
        static_cast<const char*>(tensor.data) + r * tensor.cols * SizeOf(tensor.dtype);
    ConvertToFloat(source, tensor.dtype, tensor.cols, row.data());
    for (const float value : row) sum += double{value} * double{value};
  }
  return std::sqrt(sum);
}

// A square matrix transposed, in memory of its own; tiles keep both sides in cache.
std::vector<char> Transpose(const HostTensor& square) {
  const int64_t n = square.rows;
  const int64_t element = SizeOf(square.dtype);
  std::vector<char> result(static_cast<size_t>(n * n * element));
  const char* from = static_cast<const char*>(square.data);
  for (int64_t top = 0; top < n; top += kTile) {
    for (int64_t left = 0; left < n; left += kTile) {
      for (int64_t r = top; r < std::min(n, top + kTile); ++r) {
        for (int64_t c = left; c < std::min(n, left + kTile); ++c) {
          std::memcpy(result.data() + (c * n + r) * element, from + (r * n + c) * element,
                      static_cast<size_t>(element));
        }
      }
    }
  }
  return result;
}

// Finds a model's tensors, checks their values and puts them on the device.
class WeightLoader {
 public:
  WeightLoader(const TensorSource& source, Backend& backend, std::unique_ptr<Stream> stream)
      : source_(source), backend_(backend), stream_(std::move(stream)) {}

  absl::StatusOr<HostTensor> Find(const std::string& name, int64_t rows, int64_t cols) const {
    MNEME_ASSIGN_OR_RETURN(const HostTensor tensor, source_.Find(name, rows, cols));
    if (IsFinite(tensor)) return tensor;
    return absl::InvalidArgumentError(
        absl::StrCat("tensor \"", name, "\" holds values that are not finite"));
  }

  absl::StatusOr<DeviceBuffer> Upload(const void* data, int64_t bytes) const {
    MNEME_ASSIGN_OR_RETURN(DeviceBuffer buffer, backend_.Allocate(bytes));
    stream_->CopyFromHost(buffer.data(), data, bytes);
    MNEME_RETURN_IF_ERROR(stream_->Synchronize());
    return buffer;
  }

  // The tensors one after another, as float32.
  absl::StatusOr<DeviceBuffer> UploadAsFloat(absl::Span<const HostTensor> parts) const {
    int64_t count = 0;
    for (const HostTensor& part : parts) count += part.rows * part.cols;
    std::vector<float> values(static_cast<size_t>(count));
    float* next = values.data();
    for (const HostTensor& part : parts) {
      ConvertToFloat(part.data, part.dtype, part.rows * part.cols, next);
      next += part.rows * part.cols;
    }
    return Upload(values.data(), count * SizeOf(DType::kF32));
  }

  absl::StatusOr<DeviceBuffer> LoadAsFloat(const std::string& name, int64_t rows,
                                           int64_t cols = 0) const {
    MNEME_ASSIGN_OR_RETURN(const HostTensor tensor, Find(name, rows, cols));
    return UploadAsFloat({tensor});
  }

  absl::StatusOr<std::unique_ptr<PackedMatrix>> LoadMatrix(const std::string& name, int64_t rows,
                                                           int64_t cols) const {
    MNEME_ASSIGN_OR_RETURN(const HostTensor tensor, Find(name, rows, cols));
    return backend_.Pack({tensor});
  }

  absl::StatusOr<std::unique_ptr<PackedMatrix>> LoadTransposed(const std::string& name,
                                                               int64_t size) const {
    MNEME_ASSIGN_OR_RETURN(const HostTensor tensor, Find(name, size, size));
    const std::vector<char> transposed = Transpose(tensor);
    return backend_.Pack({HostTensor{transposed.data(), tensor.dtype, size, size}});
  }

  Backend& backend() const { return backend_; }

 private:
  const TensorSource& source_;
  Backend& backend_;
  std::unique_ptr<Stream> stream_;
};

absl::Status LoadAttention(const ModelConfig& config, const WeightLoader& loader,
                           const std::string& prefix, LayerWeights& layer) {
  const int64_t d = config.hidden_size;
  const int64_t q_rows = config.num_heads * config.head_dim;
  const int64_t kv_rows = config.num_kv_heads * config.head_dim;
  MNEME_ASSIGN_OR_RETURN(const HostTensor q, loader.Find(prefix + "q_proj.weight", q_rows, d));
  MNEME_ASSIGN_OR_RETURN(const HostTensor k, loader.Find(prefix + "k_proj.weight", kv_rows, d));
  MNEME_ASSIGN_OR_RETURN(const HostTensor v, loader.Find(prefix + "v_proj.weight", kv_rows, d));
  MNEME_ASSIGN_OR_RETURN(layer.qkv, loader.backend().Pack({q, k, v}));
  MNEME_ASSIGN_OR_RETURN(layer.o, loader.LoadMatrix(prefix + "o_proj.weight", d, q_rows));
  if (config.architecture == Architecture::kQwen3) {
    MNEME_ASSIGN_OR_RETURN(layer.q_norm,
                           loader.LoadAsFloat(prefix + "q_norm.weight", config.head_dim));
    MNEME_ASSIGN_OR_RETURN(layer.k_norm,
                           loader.LoadAsFloat(prefix + "k_norm.weight", config.head_dim));
  }
  if (!config.attention_bias) return absl::OkStatus();
  MNEME_ASSIGN_OR_RETURN(const HostTensor q_bias, loader.Find(prefix + "q_proj.bias", q_rows, 0));
  MNEME_ASSIGN_OR_RETURN(const HostTensor k_bias, loader.Find(prefix + "k_proj.bias", kv_rows, 0));
  MNEME_ASSIGN_OR_RETURN(const HostTensor v_bias, loader.Find(prefix + "v_proj.bias", kv_rows, 0));
  MNEME_ASSIGN_OR_RETURN(layer.qkv_bias, loader.UploadAsFloat({q_bias, k_bias, v_bias}));
  MNEME_ASSIGN_OR_RETURN(layer.o_bias, loader.LoadAsFloat(prefix + "o_proj.bias", d));
  return absl::OkStatus();
}

absl::Status LoadMlp(const ModelConfig& config, const WeightLoader& loader,
                     const std::string& prefix, bool learns, LayerWeights& layer) {
  const int64_t d = config.hidden_size;
  const int64_t f = config.intermediate_size;
  MNEME_ASSIGN_OR_RETURN(const HostTensor gate, loader.Find(prefix + "gate_proj.weight", f, d));
  MNEME_ASSIGN_OR_RETURN(const HostTensor up, loader.Find(prefix + "up_proj.weight", f, d));
  MNEME_ASSIGN_OR_RETURN(const HostTensor down, loader.Find(prefix + "down_proj.weight", d, f));
  MNEME_ASSIGN_OR_RETURN(layer.gate_up, loader.backend().Pack({gate, up}));
  MNEME_ASSIGN_OR_RETURN(layer.down, loader.backend().Pack({down}));
  if (!learns) return absl::OkStatus();
  layer.down_norm = FrobeniusNorm(down);
  MNEME_ASSIGN_OR_RETURN(layer.ttt_conv, loader.LoadAsFloat(prefix + "ttt_conv.weight", d, 5));
  if (config.ttt->projection) {
    MNEME_ASSIGN_OR_RETURN(layer.ttt_projection,
                           loader.LoadTransposed(prefix + "ttt_proj.weight", d));
  }
  return absl::OkStatus();
}

absl::StatusOr<LayerWeights> LoadLayer(const ModelConfig& config, const WeightLoader& loader,
                                       int index) {
  const std::string prefix = absl::StrCat("model.layers.", index, ".");
  const bool learns = config.ttt && std::find(config.ttt->layers.begin(), config.ttt->layers.end(),
                                              index) != config.ttt->layers.end();
  const int64_t d = config.hidden_size;
  LayerWeights layer;
  MNEME_ASSIGN_OR_RETURN(layer.input_norm,
                         loader.LoadAsFloat(prefix + "input_layernorm.weight", d));
  MNEME_ASSIGN_OR_RETURN(layer.post_norm,
                         loader.LoadAsFloat(prefix + "post_attention_layernorm.weight", d));
  MNEME_RETURN_IF_ERROR(LoadAttention(config, loader, prefix + "self_attn.", layer));
  MNEME_RETURN_IF_ERROR(LoadMlp(config, loader, prefix + "mlp.", learns, layer));
  return layer;
}

absl::Status LoadEnds(const ModelConfig& config, const WeightLoader& loader,
                      ModelWeights& weights) {
  const int64_t vocabulary = config.vocab_size;
  const int64_t d = config.hidden_size;
  MNEME_ASSIGN_OR_RETURN(const HostTensor embedding,
                         loader.Find("model.embed_tokens.weight", vocabulary, d));
  MNEME_ASSIGN_OR_RETURN(weights.embedding_storage,
                         loader.Upload(embedding.data, vocabulary * d * SizeOf(embedding.dtype)));
  weights.embedding = {weights.embedding_storage.data(), embedding.dtype, vocabulary, d, d};
  MNEME_ASSIGN_OR_RETURN(weights.final_norm, loader.LoadAsFloat("model.norm.weight", d));
  if (config.tie_word_embeddings) {
    MNEME_ASSIGN_OR_RETURN(weights.lm_head, loader.backend().Pack({embedding}));
  } else {
    MNEME_ASSIGN_OR_RETURN(weights.lm_head, loader.LoadMatrix("lm_head.weight", vocabulary, d));
  }
  return absl::OkStatus();
}

absl::Status CheckLimits(const ModelConfig& config, const Backend& backend) {
  const BackendLimits limits = backend.limits();
  const auto check = [&](const char* what, int64_t value, int64_t most) {
    if (value <= most) return absl::OkStatus();
    return absl::UnimplementedError(absl::StrCat("the model's ", what, " is ", value, "; ",
                                                 backend.description(), " computes up to ", most));
  };
  MNEME_RETURN_IF_ERROR(check("head_dim", config.head_dim, limits.head_dim));
  return check("vocab_size", config.vocab_size, limits.vocab_size);
}

}  // namespace

absl::StatusOr<ModelWeights> LoadWeights(const ModelConfig& config, const TensorSource& source,
                                         Backend& backend, const LoadProgress& progress) {
  MNEME_RETURN_IF_ERROR(CheckLimits(config, backend));
  MNEME_ASSIGN_OR_RETURN(std::unique_ptr<Stream> stream, backend.CreateStream());
  const WeightLoader loader(source, backend, std::move(stream));
  ModelWeights weights;
  MNEME_RETURN_IF_ERROR(LoadEnds(config, loader, weights));
  for (int i = 0; i < config.num_layers; ++i) {
    MNEME_ASSIGN_OR_RETURN(LayerWeights layer, LoadLayer(config, loader, i));
    weights.layers.push_back(std::move(layer));
    if (progress) progress(i + 1, config.num_layers);
  }
  return weights;
}

}  // namespace mneme
