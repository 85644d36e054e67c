// mneme-bench: how fast the engine is, without a network.

#include <CLI/CLI.hpp>
#include <fstream>
#include <iostream>
#include <string>

#include "base/version.h"
#include "bench/benchmark.h"

namespace mneme {
namespace {

constexpr char kDescription[] =
    "Measures the engine alone: prefill and decode, with learning and on the same model without "
    "it,\nand beside each the time that the matmul library needs for the same products.";

constexpr char kFooter[] = R"(Examples:
  mneme-bench --random_weights qwen3-0.6b --step_tokens 512
  mneme-bench --model models/mneme-demo --prefill_tokens 8192 --json bench.json
On a machine that does other things, look at the shares and costs: what is compared takes turns
step by step. OMP_WAIT_POLICY=passive keeps waiting threads out of the processor time.)";

constexpr int64_t kMaxTokens = int64_t{1} << 24;

void AddModelFlags(CLI::App& app, BenchOptions& options) {
  auto* source = app.add_option_group("model", "What is measured");
  source->add_option("--model", options.model_dir, "A model's directory")
      ->check(CLI::ExistingDirectory);
  source->add_option("--random_weights", options.random_weights,
                     "Random weights of a shape: qwen3-0.6b, qwen3-4b, qwen3-8b, llama-3.1-8b");
  source->require_option(1);
  app.add_option("--chunk", options.chunk,
                 "Tokens of a chunk (default: the model's own; 512 for random weights)")
      ->check(CLI::Range(int64_t{1}, kMaxTokens));
  app.add_option("--seed", options.seed, "Of random weights and tokens")->capture_default_str();
}

void AddLengthFlags(CLI::App& app, BenchOptions& options) {
  const auto tokens = CLI::Range(int64_t{1}, kMaxTokens);
  app.add_option("--prefill_tokens", options.prefill_tokens, "Tokens that a session reads")
      ->check(tokens)
      ->capture_default_str();
  app.add_option("--decode_tokens", options.decode_tokens, "Tokens that it then generates")
      ->check(tokens)
      ->capture_default_str();
  app.add_option("--context", options.context,
                 "Position where generating begins (default: prefill_tokens, which is the least)")
      ->check(tokens);
  app.add_option("--step_tokens", options.step_tokens, "Tokens that are computed at once")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 16))
      ->capture_default_str();
  app.add_option("--repeat", options.repeat, "Repeats; the medians are printed")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
}

void AddMachineFlags(CLI::App& app, BenchOptions& options) {
  app.add_option("--threads", options.threads, "Threads (default: one for each processor)")
      ->check(CLI::Range(0, 1024));
  app.add_option_function<std::string>(
         "--cpu_dtype",
         [&options](const std::string& name) {
           options.cpu_dtype = name == "bf16" ? DType::kBF16 : DType::kF32;
         },
         "What matrix products are computed in: f32 or bf16 (default: f32)")
      ->check(CLI::IsMember({"f32", "bf16"}));
  app.add_option("--json", options.json_file, "Writes the figures to this file as JSON, too");
}

int Fail(const std::string& message) {
  std::cerr << "mneme-bench: " << message << '\n';
  return 1;
}

int Run(const BenchOptions& options) {
  const absl::StatusOr<BenchReport> report = RunBenchmark(options);
  if (!report.ok()) return Fail(std::string(report.status().message()));
  std::cout << ReportText(*report);
  if (options.json_file.empty()) return 0;
  std::ofstream file(options.json_file);
  file << ReportJson(*report) << std::flush;
  return file.good() ? 0 : Fail("cannot write " + options.json_file.string());
}

}  // namespace
}  // namespace mneme

int main(int argc, char** argv) {
  CLI::App app(mneme::kDescription, "mneme-bench");
  mneme::BenchOptions options;
  app.set_version_flag("--version", std::string("mneme-bench ") + mneme::kVersion);
  app.footer(mneme::kFooter);
  mneme::AddModelFlags(app, options);
  mneme::AddLengthFlags(app, options);
  mneme::AddMachineFlags(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return mneme::Run(options);
}
