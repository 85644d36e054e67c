#include "bench/model_flags.h"

#include <cstdint>
#include <map>

namespace mneme {
namespace {

void AddCpuFlags(CLI::App& app, BenchOptions& options) {
  app.add_option("--threads", options.threads, "CPU: threads (default: one for each processor)")
      ->check(CLI::Range(0, 1024));
  app.add_option_function<std::string>(
         "--cpu_dtype",
         [&options](const std::string& name) {
           options.cpu_dtype = name == "bf16" ? DType::kBF16 : DType::kF32;
         },
         "CPU: what matrix products are computed in: f32 or bf16 (default: f32)")
      ->check(CLI::IsMember({"f32", "bf16"}));
}

void AddCudaFlags(CLI::App& app, CudaBackendOptions& cuda) {
  std::map<std::string, DeltaType> types;
  for (const DeltaType type : {DeltaType::kFloat32, DeltaType::kBFloat16, DeltaType::kFp8E4M3}) {
    types[NameOf(type)] = type;
  }
  app.add_option("--cuda_device", cuda.device, "CUDA: the GPU's number")->capture_default_str();
  app.add_option_function<std::string>(
         "--dtype",
         [&cuda](const std::string& name) {
           cuda.dtype = name == "bf16" ? DType::kBF16 : DType::kF32;
         },
         "CUDA: weights, activations, keys and values: bf16 or f32 (default: bf16)")
      ->check(CLI::IsMember({"bf16", "f32"}));
  app.add_option("--delta_accumulate", cuda.delta_accumulate,
                 "CUDA: what fast weights accumulate in: fp32 or bf16 (default: bf16)")
      ->transform(CLI::CheckedTransformer(types))
      ->default_str("");
  app.add_option("--delta_read", cuda.delta_read,
                 "CUDA: what products read of them: fp32, bf16 or fp8_e4m3 (default: bf16)")
      ->transform(CLI::CheckedTransformer(types))
      ->default_str("");
}

}  // namespace

void AddModelFlags(CLI::App& app, BenchOptions& options) {
  auto* source = app.add_option_group("model", "What is measured");
  source->add_option("--model", options.model_dir, "A model's directory")
      ->check(CLI::ExistingDirectory);
  source->add_option("--random_weights", options.random_weights,
                     "Random weights of a shape: qwen3-0.6b, qwen3-4b, qwen3-8b, llama-3.1-8b");
  source->require_option(1);
  app.add_option("--chunk", options.chunk,
                 "Tokens of a chunk (default: the model's own; 512 for random weights)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24));
  app.add_option("--seed", options.seed, "Of random weights and tokens")->capture_default_str();
}

void AddBackendFlags(CLI::App& app, BenchOptions& options, BackendFlags& flags) {
  app.add_option("--backend", flags.backend, "cpu or cuda")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  AddCpuFlags(app, options);
  AddCudaFlags(app, flags.cuda);
}

}  // namespace mneme
