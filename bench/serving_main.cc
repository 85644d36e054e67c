// mneme-bench-serving: what the scheduler makes of a CPU.

#include <CLI/CLI.hpp>
#include <iostream>
#include <string>

#include "base/version.h"
#include "bench/serving.h"

namespace mneme {
namespace {

constexpr char kDescription[] =
    "Measures the engine with its scheduler on a CPU: how fast many sessions generate together, "
    "set "
    "beside\none alone and the larger of two bounds (bytes over the read bandwidth, operations "
    "over "
    "the matmul\nlibrary's rate), and the time between tokens of a stream while documents are "
    "read.";

int Run(const ServingOptions& options) {
  const absl::StatusOr<ServingReport> report = MeasureServing(options);
  if (!report.ok()) {
    std::cerr << "mneme-bench-serving: " << report.status().message() << '\n';
    return 1;
  }
  std::cout << ServingText(*report);
  return 0;
}

}  // namespace
}  // namespace mneme

int main(int argc, char** argv) {
  CLI::App app(mneme::kDescription, "mneme-bench-serving");
  app.set_version_flag("--version", std::string("mneme-bench-serving ") + mneme::kVersion);
  app.option_defaults()->always_capture_default();
  mneme::ServingOptions options;
  const auto count = CLI::Range(int64_t{1}, int64_t{1} << 20);
  app.add_option("--model", options.model_dir, "A model's directory")
      ->required()
      ->check(CLI::ExistingDirectory);
  app.add_option("--sessions", options.sessions, "That generate together")->check(count);
  app.add_option("--documents", options.documents, "That are read beside a stream")->check(count);
  app.add_option("--context", options.context, "Tokens that a session has read before")
      ->check(count);
  app.add_option("--decode_tokens", options.decode_tokens, "Tokens that a session generates")
      ->check(count);
  app.add_option("--threads", options.threads, "0: one for each processor")
      ->check(CLI::Range(0, 1024));
  CLI11_PARSE(app, argc, argv);
  return mneme::Run(options);
}
