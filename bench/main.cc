// mneme-bench: how fast the engine is, without a network.

#include <CLI/CLI.hpp>
#include <fstream>
#include <iostream>
#include <string>

#include "base/version.h"
#include "bench/benchmark.h"
#include "bench/model_flags.h"
#include "bench/precision.h"
#include "bench/table.h"

namespace mneme {
namespace {

constexpr char kDescription[] =
    "Measures the engine alone, with learning and on the same model without it. On a CPU: prefill "
    "and\ndecode, and beside each the time that the matmul library needs for the same products. On "
    "a GPU, or\nwith --work: a table of workloads, each beside the floor that the device's own "
    "ceilings allow.";

constexpr char kFooter[] = R"(Examples:
  mneme-bench --random_weights qwen3-0.6b --step_tokens 512
  mneme-bench --model models/mneme-demo --prefill_tokens 8192 --json bench.json
  mneme-bench --backend cuda --random_weights qwen3-4b --chunk 1024
  mneme-bench --backend cuda --random_weights qwen3-8b --chunk 1024 --work decode:8x2048
On a machine that does other things, look at the shares and costs: what is compared takes turns
step by step. OMP_WAIT_POLICY=passive keeps waiting threads out of the processor time.)";

constexpr int64_t kMaxTokens = int64_t{1} << 24;

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

void AddWorkFlag(CLI::App& app, BenchOptions& options) {
  app.add_option_function<std::vector<std::string>>(
         "--work",
         [&options](const std::vector<std::string>& names) {
           for (const std::string& name : names) {
             const absl::StatusOr<Workload> workload = ParseWorkload(name);
             if (!workload.ok())
               throw CLI::ValidationError(std::string(workload.status().message()));
             options.workloads.push_back(*workload);
           }
         },
         "Rows of the table: decode:STREAMSxCONTEXT or prefill:TOKENS (default on a GPU: "
         "decode:1x4096 decode:8x2048 decode:64x4096 prefill:4096 prefill:32768)")
      ->delimiter(',');
}

int Fail(const std::string& message) {
  std::cerr << "mneme-bench: " << message << '\n';
  return 1;
}

int WriteJson(const BenchOptions& options, const std::string& json) {
  if (options.json_file.empty()) return 0;
  std::ofstream file(options.json_file);
  file << json << std::flush;
  return file.good() ? 0 : Fail("cannot write " + options.json_file.string());
}

int Compare(const BenchOptions& options) {
  const absl::StatusOr<BenchReport> report = RunBenchmark(options);
  if (!report.ok()) return Fail(std::string(report.status().message()));
  std::cout << ReportText(*report);
  return WriteJson(options, ReportJson(*report));
}

void PrintProgress(const std::string& what) { std::cerr << "mneme-bench: " << what << std::endl; }

int Tabulate(const BenchOptions& options) {
  const absl::StatusOr<BenchTable> table = RunTable(options, PrintProgress);
  if (!table.ok()) return Fail(std::string(table.status().message()));
  std::cout << TableText(*table);
  return WriteJson(options, TableJson(*table));
}

int ComparePrecision(const BenchOptions& options) {
  const absl::StatusOr<PrecisionReport> report = MeasurePrecision(options, PrintProgress);
  if (!report.ok()) return Fail(std::string(report.status().message()));
  std::cout << PrecisionText(*report);
  return WriteJson(options, PrecisionJson(*report));
}

// What depends on the backend and was not given.
void AddDefaults(bool step_tokens_given, BenchOptions& options) {
  if (!options.cuda) return;
  constexpr int64_t kCudaStepTokens = 4096;
  if (!step_tokens_given) options.step_tokens = kCudaStepTokens;
  if (!options.workloads.empty() || options.precision) return;
  for (const char* name :
       {"decode:1x4096", "decode:8x2048", "decode:64x4096", "prefill:4096", "prefill:32768"}) {
    options.workloads.push_back(*ParseWorkload(name));
  }
}

}  // namespace
}  // namespace mneme

int main(int argc, char** argv) {
  CLI::App app(mneme::kDescription, "mneme-bench");
  mneme::BenchOptions options;
  mneme::BackendFlags backend;
  app.set_version_flag("--version", std::string("mneme-bench ") + mneme::kVersion);
  app.footer(mneme::kFooter);
  mneme::AddModelFlags(app, options);
  mneme::AddLengthFlags(app, options);
  mneme::AddWorkFlag(app, options);
  mneme::AddBackendFlags(app, options, backend);
  auto* precision = app.add_flag("--precision", options.precision,
                                 "CUDA: what each type of fast weights costs in accuracy, over "
                                 "prefill_tokens tokens, instead of measuring speed");
  app.add_option("--text", options.text_file, "The text that --precision reads")
      ->check(CLI::ExistingFile)
      ->needs(precision)
      ->excludes("--random_weights");
  app.add_option("--json", options.json_file, "Writes the figures to this file as JSON, too");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  backend.ApplyTo(&options);
  mneme::AddDefaults(app.count("--step_tokens") > 0, options);
  if (options.precision) return mneme::ComparePrecision(options);
  return options.workloads.empty() ? mneme::Compare(options) : mneme::Tabulate(options);
}
