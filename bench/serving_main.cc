// mneme-bench-serving: what the scheduler makes of a machine.

#include <CLI/CLI.hpp>
#include <iostream>
#include <string>

#include "base/version.h"
#include "bench/model_flags.h"
#include "bench/serving.h"

namespace mneme {
namespace {

constexpr char kDescription[] =
    "Measures the engine with its scheduler: how fast many sessions generate together, on a CPU "
    "set\n"
    "beside the larger of two bounds (bytes over the read bandwidth, operations over the matmul\n"
    "library's rate), and the time between tokens of a stream while documents are read.";

int Run(const ServingOptions& options) {
  ServingReport report;
  const absl::Status status = MeasureServing(options, report);
  std::cout << ServingText(report);
  if (!status.ok()) std::cerr << "mneme-bench-serving: " << status.message() << '\n';
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace mneme

int main(int argc, char** argv) {
  CLI::App app(mneme::kDescription, "mneme-bench-serving");
  app.set_version_flag("--version", std::string("mneme-bench-serving ") + mneme::kVersion);
  app.option_defaults()->always_capture_default();
  mneme::ServingOptions options;
  const auto count = CLI::Range(int64_t{1}, int64_t{1} << 20);
  mneme::BackendFlags backend;
  double target_ms = 0;
  mneme::AddModelFlags(app, options.model);
  mneme::AddBackendFlags(app, options.model, backend);
  app.add_option("--sessions", options.sessions, "That generate together")->check(count);
  app.add_option("--documents", options.documents, "That are read beside a stream")->check(count);
  app.add_option("--document_tokens", options.document_tokens, "Of each")->check(count);
  app.add_option("--context", options.context, "Tokens that a session has read before")
      ->check(count);
  app.add_option("--decode_tokens", options.decode_tokens, "Tokens that a session generates")
      ->check(count);
  app.add_option("--moves", options.moves,
                 "Requests of sessions of which most are in the host's memory; 0: not measured")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20));
  app.add_option("--target_inter_token_ms", target_ms,
                 "What a step may take while documents are read; 0: 8, or 40 on cuda")
      ->check(CLI::Range(0.0, 60000.0));
  CLI11_PARSE(app, argc, argv);
  backend.ApplyTo(&options.model);
  if (options.model.cuda) {
    options.model.step_tokens = 4096;
    options.target = absl::Milliseconds(40);
  }
  if (target_ms > 0) options.target = absl::Milliseconds(target_ms);
  return mneme::Run(options);
}
