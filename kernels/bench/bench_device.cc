#include "kernels/bench/bench_device.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>
#include <utility>

namespace mneme {
namespace {

// SplitMix64 (Steele, Lea, Flood, 2014) as a function of a counter.
uint64_t Hash(uint64_t seed, uint64_t index) {
  uint64_t x = seed * 0xD1342543DE82EF95 + (index + 1) * 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

std::vector<float> UniformValues(int64_t count, uint64_t seed) {
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); i += 8) {
    const uint64_t bits = Hash(seed, i / 8);
    for (size_t j = 0; j < 8 && i + j < values.size(); ++j) {
      values[i + j] = static_cast<float>(static_cast<int8_t>(bits >> (8 * j))) / 128;
    }
  }
  return values;
}

// Sums of four uniform numbers.
std::vector<float> NormalValues(int64_t count, uint64_t seed) {
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) {
    const uint64_t bits = Hash(seed, i);
    int sum = 0;
    for (int j = 0; j < 4; ++j) sum += static_cast<int16_t>(bits >> (16 * j));
    values[i] = static_cast<float>(sum) * (2.0F / 37837);  // √(4 / 3) · 2¹⁵ is one deviation
  }
  return values;
}

}  // namespace

void Require(const absl::Status& status) {
  if (status.ok()) return;
  std::cerr << "kernels_bench: " << status.ToString() << "\n";
  std::exit(1);
}

BenchDevice::BenchDevice(std::unique_ptr<Backend> backend, DType weight_dtype,
                         int64_t delta_read_bytes)
    : backend_(std::move(backend)),
      weight_dtype_(weight_dtype),
      delta_read_bytes_(delta_read_bytes) {
  auto stream = backend_->CreateStream();
  Require(stream.status());
  stream_ = *std::move(stream);
}

void* BenchDevice::Allocate(int64_t bytes) {
  auto buffer = backend_->Allocate(bytes);
  Require(buffer.status());
  buffers_.push_back(*std::move(buffer));
  return buffers_.back().data();
}

void* BenchDevice::AllocateHost(int64_t bytes) {
  auto buffer = backend_->AllocateHost(bytes);
  Require(buffer.status());
  buffers_.push_back(*std::move(buffer));
  return buffers_.back().data();
}

Matrix BenchDevice::Upload(const std::vector<float>& values, int64_t rows, int64_t cols,
                           DType dtype) {
  const Matrix out{Allocate(rows * cols * SizeOf(dtype)), dtype, rows, cols, cols};
  std::vector<uint16_t> halves;
  const void* host = values.data();
  if (dtype == DType::kBF16) {
    halves.resize(values.size());
    std::transform(values.begin(), values.end(), halves.begin(), FloatToBFloat16);
    host = halves.data();
  }
  stream_->CopyFromHost(out.data, host, rows * cols * SizeOf(dtype));
  Synchronize();
  return out;
}

Matrix BenchDevice::Random(int64_t rows, int64_t cols, DType dtype, uint64_t seed) {
  return Upload(UniformValues(rows * cols, seed), rows, cols, dtype);
}

Matrix BenchDevice::Logits(int64_t rows, int64_t cols, uint64_t seed) {
  return Upload(NormalValues(rows * cols, seed), rows, cols, DType::kF32);
}

std::vector<const PackedMatrix*> BenchDevice::Weights(int64_t out, int64_t in, uint64_t seed,
                                                      int copies) {
  const std::vector<float> values = UniformValues(out * in, seed);
  const HostTensor part{values.data(), DType::kF32, out, in};
  std::vector<const PackedMatrix*> weights;
  for (int i = 0; i < copies; ++i) {
    auto packed = backend_->Pack({&part, 1});
    Require(packed.status());
    weights_.push_back(*std::move(packed));
    weights.push_back(weights_.back().get());
  }
  return weights;
}

std::vector<void*> BenchDevice::Deltas(int64_t d, int64_t f, uint64_t seed, int64_t copies) {
  constexpr int64_t kChunk = 4;
  const int64_t bytes = backend_->DeltaBytes(d, f);
  std::vector<void*> deltas;
  for (int64_t i = 0; i < copies; ++i) deltas.push_back(Allocate(bytes));
  const FastWeightLayer layer{Random(d, 5, DType::kF32, seed), nullptr, 0.25F, 1.0};
  const ChunkUpdate update{.target = Activations(kChunk, d, seed + 1),
                           .z = Activations(kChunk, f, seed + 2),
                           .delta = deltas[0],
                           .delta_is_zero = true};
  ChunkUpdateResult result;
  stream_->UpdateFastWeights(layer, {&update, 1}, &result);
  for (void* copy : deltas) {
    if (copy != deltas[0]) stream_->CopyOnDevice(copy, deltas[0], bytes);
  }
  Synchronize();
  return deltas;
}

std::vector<float> BenchDevice::Read(Matrix matrix) {
  std::vector<char> bytes(static_cast<size_t>(matrix.rows * matrix.stride * SizeOf(matrix.dtype)));
  stream_->CopyToHost(bytes.data(), matrix.data, static_cast<int64_t>(bytes.size()));
  Synchronize();
  std::vector<float> values(static_cast<size_t>(matrix.rows * matrix.stride));
  ConvertToFloat(bytes.data(), matrix.dtype, matrix.rows * matrix.stride, values.data());
  return values;
}

void BenchDevice::Clear() {
  Synchronize();
  buffers_.clear();
  weights_.clear();
}

}  // namespace mneme
