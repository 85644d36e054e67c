#include "engine/loading/random_weights.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <thread>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/dtype.h"

namespace mneme {
namespace {

constexpr double kConvCentre = 0.02;
constexpr int64_t kConvTaps = 5;
constexpr int kLargestSum = 4 * 255;  // of four bytes

struct Shape {
  absl::string_view name;
  Architecture architecture;
  int64_t hidden, intermediate;
  int layers;
  int64_t heads, kv_heads, vocabulary, positions;
  double theta;
  bool tied;
};
constexpr std::array kShapes = {
    Shape{"qwen3-0.6b", Architecture::kQwen3, 1024, 3072, 28, 16, 8, 151936, 40960, 1e6, true},
    Shape{"qwen3-4b", Architecture::kQwen3, 2560, 9728, 36, 32, 8, 151936, 40960, 1e6, true},
    Shape{"qwen3-8b", Architecture::kQwen3, 4096, 12288, 36, 32, 8, 151936, 40960, 1e6, false},
    Shape{"llama-3.1-8b", Architecture::kLlama, 4096, 14336, 32, 32, 8, 128256, 131072, 5e5,
          false}};

ModelConfig MakeConfig(const Shape& shape) {
  ModelConfig config;
  config.architecture = shape.architecture;
  config.vocab_size = shape.vocabulary;
  config.hidden_size = shape.hidden;
  config.intermediate_size = shape.intermediate;
  config.num_layers = shape.layers;
  config.num_heads = shape.heads;
  config.num_kv_heads = shape.kv_heads;
  config.head_dim = 128;
  config.rope.theta = shape.theta;
  config.max_position_embeddings = shape.positions;
  config.tie_word_embeddings = shape.tied;
  config.windows.assign(static_cast<size_t>(shape.layers), 0);
  config.ttt.emplace();
  for (int layer = 0; layer <= 30 && layer < shape.layers; layer += 6) {
    config.ttt->layers.push_back(layer);
  }
  if (shape.architecture == Architecture::kLlama) {
    config.rms_norm_eps = 1e-5F;
    config.rope.kind = RopeKind::kLlama3;
    config.rope.factor = 8;
    config.rope.original_max_position_embeddings = 8192;
  }
  return config;
}

// SplitMix64's output function: the n-th number of a stream is Mix(start + n · odd constant).
uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
  return x ^ (x >> 31);
}
constexpr uint64_t kStep = 0x9e3779b97f4a7c15U;

uint64_t StreamStart(uint64_t seed, const std::string& name) {
  uint64_t state = Mix(seed + kStep);
  for (const char c : name) state = Mix((state ^ static_cast<uint8_t>(c)) + kStep);
  return state;
}

// Runs fill(from, to) over parts of [0, count) that begin at even indices, on all processors.
template <typename Fill>
void InParts(size_t count, const Fill& fill) {
  constexpr size_t kSmallestPart = size_t{1} << 20;
  const size_t most = std::max<size_t>(std::thread::hardware_concurrency(), 1);
  const size_t parts = std::clamp<size_t>(count / kSmallestPart, 1, most);
  const size_t part = (count / parts + 2) / 2 * 2;
  std::vector<std::thread> threads;
  for (size_t from = part; from < count; from += part) {
    threads.emplace_back([&fill, from, to = std::min(from + part, count)] { fill(from, to); });
  }
  fill(0, std::min(part, count));
  for (std::thread& thread : threads) thread.join();
}

// Values close to normal: the sum of four bytes, centred and scaled.
void FillNormal(uint64_t start, double deviation, std::vector<uint16_t>& values) {
  const double unit = std::sqrt(4 * (256.0 * 256.0 - 1) / 12);  // the sum's deviation
  std::array<uint16_t, kLargestSum + 1> table;
  for (int sum = 0; sum <= kLargestSum; ++sum) {
    const double value = (sum - kLargestSum / 2.0) / unit * deviation;
    table[static_cast<size_t>(sum)] = FloatToBFloat16(static_cast<float>(value));
  }
  const auto pick = [&table](uint64_t bits) {
    const uint64_t pairs = (bits & 0x00ff00ffU) + ((bits >> 8) & 0x00ff00ffU);
    return table[(pairs & 0xffff) + (pairs >> 16)];
  };
  InParts(values.size(), [&](size_t from, size_t to) {
    for (size_t i = from; i < to; i += 2) {
      const uint64_t random = Mix(start + (i / 2 + 1) * kStep);
      values[i] = pick(random & 0xffffffffU);
      if (i + 1 < to) values[i + 1] = pick(random >> 32);
    }
  });
}

void FillConv(std::vector<uint16_t>& values) {
  std::fill(values.begin(), values.end(), uint16_t{0});
  for (size_t i = kConvTaps / 2; i < values.size(); i += kConvTaps) {
    values[i] = FloatToBFloat16(static_cast<float>(kConvCentre));
  }
}

}  // namespace

absl::StatusOr<ModelConfig> NamedShape(absl::string_view name) {
  for (const Shape& shape : kShapes) {
    if (shape.name == name) return MakeConfig(shape);
  }
  const std::string names = absl::StrJoin(
      kShapes, ", ", [](std::string* out, const Shape& s) { absl::StrAppend(out, s.name); });
  return absl::InvalidArgumentError(
      absl::StrCat("\"", name, "\" is no named shape; those known are ", names));
}

absl::StatusOr<HostTensor> RandomTensors::Find(const std::string& name, int64_t rows,
                                               int64_t cols) const {
  const int64_t columns = cols == 0 ? rows : cols;
  const int64_t lines = cols == 0 ? 1 : rows;
  std::vector<uint16_t>& values = tensors_[name];
  if (values.empty()) {
    values.resize(static_cast<size_t>(lines * columns));
    if (absl::EndsWith(name, "norm.weight")) {
      std::fill(values.begin(), values.end(), FloatToBFloat16(1));
    } else if (absl::EndsWith(name, "ttt_conv.weight")) {
      FillConv(values);
    } else {
      FillNormal(StreamStart(seed_, name), 1 / std::sqrt(static_cast<double>(columns)), values);
    }
  } else if (static_cast<int64_t>(values.size()) != lines * columns) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor \"", name, "\" was generated with another shape"));
  }
  return HostTensor{values.data(), DType::kBF16, lines, columns};
}

}  // namespace mneme
