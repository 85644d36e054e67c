// Speed of the backend's operations at the shapes of Qwen3-0.6B (d 1024, f 3072) and of the
// bundled model (d 256, f 768). `flops` and `bytes` are rates; a matmul at the same shape is what
// the others are to be held against.

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <random>
#include <vector>

#include "benchmark/benchmark.h"
#include "kernels/cpu/cpu_backend.h"

namespace mneme {
namespace {

// A backend with a stream, and memory filled with small random numbers.
class Device {
 public:
  explicit Device(DType matmul_dtype = DType::kF32)
      : backend_(*CreateCpuBackend({.matmul_dtype = matmul_dtype})),
        stream_(*backend_->CreateStream()) {}

  Stream& stream() { return *stream_; }

  Matrix Random(int64_t rows, int64_t cols) {
    const std::vector<float> values = RandomValues(rows * cols);
    buffers_.push_back(*backend_->Allocate(rows * cols * 4));
    stream_->CopyFromHost(buffers_.back().data(), values.data(), rows * cols * 4);
    Synchronize();
    return {buffers_.back().data(), DType::kF32, rows, cols, cols};
  }

  std::unique_ptr<PackedMatrix> RandomWeight(int64_t out, int64_t in) {
    const std::vector<float> values = RandomValues(out * in);
    const HostTensor part{values.data(), DType::kF32, out, in};
    return *backend_->Pack({&part, 1});
  }

  void Synchronize() {
    if (!stream_->Synchronize().ok()) std::abort();
  }

 private:
  std::vector<float> RandomValues(int64_t count) {
    std::vector<float> values(static_cast<size_t>(count));
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (float& value : values) value = uniform(random_);
    return values;
  }

  std::mt19937 random_{7};
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
  std::vector<DeviceBuffer> buffers_;
};

void Report(benchmark::State& state, double flops, double bytes) {
  using benchmark::Counter;
  state.counters["flops"] = Counter(flops, Counter::kIsIterationInvariantRate);
  state.counters["bytes"] = Counter(bytes, Counter::kIsIterationInvariantRate);
}

void Linear(benchmark::State& state, DType dtype) {
  Device device(dtype);
  const int64_t n = state.range(0), in = state.range(1), out = state.range(2);
  const auto weight = device.RandomWeight(out, in);
  const Matrix x = device.Random(n, in), y = device.Random(n, out);
  device.stream().Linear(x, *weight, nullptr, false, y);  // generates code
  for (auto _ : state) {
    device.stream().Linear(x, *weight, nullptr, false, y);
    device.Synchronize();
  }
  const double products = static_cast<double>(n * in * out);
  Report(state, 2 * products, static_cast<double>(in * out * SizeOf(dtype)));
}

void LinearShapes(benchmark::internal::Benchmark* bench) {
  for (const int64_t n : {1, 64, 512, 2048}) {
    bench->Args({n, 1024, 4096})->Args({n, 2048, 1024})->Args({n, 1024, 6144});
    bench->Args({n, 3072, 1024})->Args({n, 256, 1536});
  }
}
BENCHMARK_CAPTURE(Linear, float32, DType::kF32)->Apply(LinearShapes)->UseRealTime();
BENCHMARK_CAPTURE(Linear, bfloat16, DType::kBF16)->Apply(LinearShapes)->UseRealTime();

// `sequences` sequences of `rows` rows each, after `past` positions.
void Attention(benchmark::State& state) {
  Device device;
  const int64_t sequences = state.range(0), rows = state.range(1), past = state.range(2);
  const QkvShape shape{state.range(3), state.range(4), state.range(5)};
  const int64_t window = state.range(6), page_tokens = 64;
  const int64_t pages = (past + rows + page_tokens - 1) / page_tokens;
  const int64_t page_floats = 2 * page_tokens * shape.kv_heads * shape.head_dim;
  const Matrix pool = device.Random(sequences * pages, page_floats);
  const KvLayer kv{
      pool.data, DType::kF32, page_floats * 4, page_tokens, shape.kv_heads, shape.head_dim, 0};
  std::vector<int32_t> page_ids(static_cast<size_t>(sequences * pages));
  std::iota(page_ids.begin(), page_ids.end(), 0);
  std::vector<PageTable> tables;
  for (int64_t i = 0; i < sequences; ++i) {
    tables.push_back({absl::MakeSpan(page_ids).subspan(static_cast<size_t>(i * pages),
                                                       static_cast<size_t>(pages)),
                      0});
  }
  std::vector<SequenceRows> batch;
  for (int64_t i = 0; i < sequences; ++i) {
    batch.push_back({i * rows, rows, past, {&tables[static_cast<size_t>(i)], 1}});
  }
  const int64_t n = sequences * rows;
  const Matrix qkv = device.Random(n, (shape.query_heads + 2 * shape.kv_heads) * shape.head_dim);
  const Matrix out = device.Random(n, shape.query_heads * shape.head_dim);
  const std::vector<int32_t> tokens(static_cast<size_t>(n));
  device.stream().BeginStep({tokens, batch});
  for (auto _ : state) {
    device.stream().Attention(qkv, shape, kv, window, 0.1f, out);
    device.Synchronize();
  }
  double keys = 0;
  for (int64_t i = 0; i < rows; ++i) {
    keys += static_cast<double>(window > 0 ? std::min(window, past + i + 1) : past + i + 1);
  }
  keys *= static_cast<double>(sequences);
  Report(state, 4 * keys * static_cast<double>(shape.query_heads * shape.head_dim),
         static_cast<double>(sequences * (past + rows) * 2 * shape.kv_heads * shape.head_dim * 4));
}
BENCHMARK(Attention)
    ->ArgNames({"sequences", "rows", "past", "hq", "hkv", "hd", "window"})
    ->Args({1, 2048, 0, 16, 8, 128, 0})
    ->Args({1, 512, 1536, 16, 8, 128, 0})
    ->Args({1, 1, 2048, 16, 8, 128, 0})
    ->Args({8, 1, 2048, 16, 8, 128, 0})
    ->Args({1, 64, 1024, 4, 4, 64, 128})
    ->Args({1, 512, 1024, 4, 4, 64, 128})
    ->Args({1, 1, 1024, 4, 4, 64, 128})
    ->UseRealTime();

void DownProject(benchmark::State& state) {
  Device device;
  const int64_t n = state.range(0), d = state.range(1), f = state.range(2);
  const auto w_down = device.RandomWeight(d, f);
  const Matrix z = device.Random(n, f), y = device.Random(n, d), delta = device.Random(d, f);
  const DeltaRows rows{0, n, delta.data};
  device.stream().DownProject(z, *w_down, {&rows, 1}, y);  // generates code
  for (auto _ : state) {
    device.stream().DownProject(z, *w_down, {&rows, 1}, y);
    device.Synchronize();
  }
  Report(state, 4 * static_cast<double>(n * d * f), static_cast<double>(2 * d * f * 4));
}
BENCHMARK(DownProject)
    ->ArgNames({"rows", "d", "f"})
    ->Args({512, 1024, 3072})
    ->Args({8, 1024, 3072})
    ->Args({1, 1024, 3072})
    ->Args({64, 256, 768})
    ->Args({1, 256, 768})
    ->UseRealTime();

void UpdateFastWeights(benchmark::State& state) {
  Device device;
  const int64_t chunk = state.range(0), d = state.range(1), f = state.range(2);
  const Matrix target = device.Random(chunk, d), z = device.Random(chunk, f);
  const Matrix delta = device.Random(d, f), conv = device.Random(d, 5);
  const auto projection = device.RandomWeight(d, d);
  const FastWeightLayer layer{conv, projection.get(), 1e-9f, 1.0};
  const ChunkUpdate update{.target = target, .z = z, .delta = delta.data};
  ChunkUpdateResult result;
  device.stream().UpdateFastWeights(layer, {&update, 1}, &result);  // generates code
  for (auto _ : state) {
    device.stream().UpdateFastWeights(layer, {&update, 1}, &result);
    device.Synchronize();
  }
  Report(state, 2 * static_cast<double>(chunk * d * (f + d)), static_cast<double>(2 * d * f * 4));
}
BENCHMARK(UpdateFastWeights)
    ->ArgNames({"chunk", "d", "f"})
    ->Args({512, 1024, 3072})
    ->Args({64, 256, 768})
    ->UseRealTime();

// What a layer does besides products and attention, on 0.6B rows.
void RowOperations(benchmark::State& state) {
  Device device;
  const int64_t n = state.range(0), d = state.range(1), f = state.range(2);
  const Matrix x = device.Random(n, d), out = device.Random(n, d), weight = device.Random(1, d);
  const Matrix gate_up = device.Random(n, 2 * f), z = device.Random(n, f);
  for (auto _ : state) {
    device.stream().RmsNorm(x, weight.data, 1e-6f, out);
    device.stream().RmsNorm(x, weight.data, 1e-6f, out);
    device.stream().SwiGlu(gate_up, z);
    device.Synchronize();
  }
  Report(state, 0, static_cast<double>(4 * n * (4 * d + 3 * f)));
}
BENCHMARK(RowOperations)
    ->ArgNames({"rows", "d", "f"})
    ->Args({2048, 1024, 3072})
    ->Args({1, 1024, 3072})
    ->Args({64, 256, 768})
    ->Args({1, 256, 768})
    ->UseRealTime();

}  // namespace
}  // namespace mneme
