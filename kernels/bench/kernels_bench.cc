// Speed of a backend's operations at the shapes of a model: for each the error against the CPU in
// float32 first, then time, rates, and the share of what the device allows.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "kernels/backend_library.h"
#include "kernels/bench/measure.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/delta_type.h"

namespace mneme {
namespace {

struct Options {
  std::string backend = "cpu", dtype, delta = NameOf(DeltaType::kBFloat16), shape, only;
  int threads = 0;
  bool compare = true;
};

std::vector<BenchShape> Shapes() {
  return {{"tiny", 256, 768, 4, 4, 64, 4096, 256, 64},
          {"qwen3-0.6b", 1024, 3072, 16, 8, 128, 151936, 2048, 512},
          {"qwen3-4b", 2560, 9728, 32, 8, 128, 151936, 4096, 1024}};
}

BenchShape ShapeOf(const Options& options) {
  const std::string wanted = !options.shape.empty()      ? options.shape
                             : options.backend == "cuda" ? "qwen3-4b"
                                                         : "tiny";
  for (const BenchShape& shape : Shapes()) {
    if (shape.name == wanted) return shape;
  }
  Require(absl::InvalidArgumentError("no such shape"));
  return {};
}

BenchDevice CpuDevice(DType dtype, int threads) {
  auto backend = CreateCpuBackend({.matmul_dtype = dtype, .threads = threads});
  Require(backend.status());
  return BenchDevice(*std::move(backend), dtype, 4);
}

BenchDevice CudaDevice(DType dtype, DeltaType read) {
  const bool wide = read == DeltaType::kFloat32;
  auto backend =
      LoadCudaBackend({.dtype = dtype,
                       .delta_accumulate = wide ? DeltaType::kFloat32 : DeltaType::kBFloat16,
                       .delta_read = read});
  Require(backend.status());
  return BenchDevice(*std::move(backend), dtype, SizeOf(read));
}

std::vector<BenchCase> AllCases(const BenchShape& shape, BenchDevice& device) {
  std::vector<BenchCase> cases;
  const auto add = [&](std::vector<BenchCase> more) {
    std::move(more.begin(), more.end(), std::back_inserter(cases));
  };
  add(LinearCases(shape, device));
  add(FusedCases(shape, device));
  add(FastWeightCases(shape, device));
  add(AttentionCases(shape, device));
  add(SampleCases(shape));
  add(RowCases(shape, device));
  add(CopyCases(shape));
  return cases;
}

void Report(const BenchCase& c, const std::string& error, double seconds,
            const DeviceCeilings& ceilings) {
  const double floor =
      std::max(c.bytes / ceilings.bytes_per_second, c.flops / ceilings.flops_per_second);
  std::cout << absl::StreamFormat("%-20s %-24s %9s %10.2f us %8.1f GB/s %8.2f TFLOP/s %5.1f %%\n",
                                  c.kernel, c.shape, error, seconds * 1e6, c.bytes / seconds / 1e9,
                                  c.flops / seconds / 1e12, 100 * floor / seconds)
            << std::flush;
}

void Run(const Options& options) {
  const BenchShape shape = ShapeOf(options);
  const bool cuda = options.backend == "cuda";
  const bool wide = options.dtype == "f32" || (options.dtype.empty() && !cuda);
  const DType dtype = wide ? DType::kF32 : DType::kBF16;
  BenchDevice device =
      cuda ? CudaDevice(dtype, *ParseDeltaType(options.delta)) : CpuDevice(dtype, options.threads);
  BenchDevice cpu = CpuDevice(DType::kF32, options.threads);
  const DeviceCeilings ceilings = MeasureCeilings(device, shape);
  std::cout << device.backend().description() << ", " << shape.name
            << absl::StreamFormat("; ceilings: copy %.1f GB/s, product %.2f TFLOP/s\n",
                                  ceilings.bytes_per_second / 1e9, ceilings.flops_per_second / 1e12)
            << absl::StreamFormat("%-20s %-24s %9s %13s %13s %16s %7s\n", "kernel", "shape",
                                  "error", "time", "bytes", "work", "ceiling");
  uint64_t key = 0;
  for (const BenchCase& c : AllCases(shape, device)) {
    ++key;
    if ((c.kernel + " " + c.shape).find(options.only) == std::string::npos) continue;
    const int sets = SetsFor(c);
    const PreparedCase prepared = c.prepare(device, sets, false);
    std::string error = "-";
    if (options.compare) {
      const PreparedCase reference = c.prepare(cpu, 1, true);
      RunOnce(device, prepared);
      RunOnce(cpu, reference);
      error = absl::StrFormat("%.1e", ErrorOf(c, prepared.result(), reference.result()));
      cpu.Clear();
    }
    Report(c, error, SecondsOf(device, c, prepared, sets, key), ceilings);
    device.Clear();
  }
}

}  // namespace
}  // namespace mneme

int main(int argc, char** argv) {
  mneme::Options options;
  CLI::App app{"Measures the operations of a Mneme backend, one by one"};
  app.add_option("--backend", options.backend, "Device")->check(CLI::IsMember({"cpu", "cuda"}));
  app.add_option("--dtype", options.dtype, "Type of weights (default: f32 on the CPU, else bf16)")
      ->check(CLI::IsMember({"f32", "bf16"}));
  app.add_option("--delta", options.delta, "What products read of fast weights (cuda)")
      ->check(CLI::IsMember({"fp32", "bf16", "fp8_e4m3"}));
  app.add_option("--shape", options.shape, "Sizes (default: tiny on the CPU, else qwen3-4b)")
      ->check(CLI::IsMember({"tiny", "qwen3-0.6b", "qwen3-4b"}));
  app.add_option("--only", options.only, "Only cases whose kernel and shape contain this");
  app.add_option("--threads", options.threads, "Threads of the CPU; 0: all");
  app.add_flag("!--no-compare", options.compare, "Leave the errors out");
  CLI11_PARSE(app, argc, argv);
  mneme::Run(options);
  return 0;
}
