#include "server/config.h"

#include <CLI/CLI.hpp>
#include <limits>

#include "base/version.h"

namespace mneme {
namespace {

constexpr char kDescription[] =
    "Serves a language model whose sessions learn while they read, over gRPC (mneme.v1).\n"
    "Sessions live in memory. SIGTERM: health turns NOT_SERVING, running streams get\n"
    "--drain_seconds to end, and the program exits with 0.";

constexpr char kFooter[] =
    "Example: mneme-server --model models/mneme-demo --backend cpu --port 50051";

constexpr int64_t kMaxInt64 = std::numeric_limits<int64_t>::max();
constexpr int kMaxPort = 65535;

void AddModelFlags(CLI::App& app, ServerConfig& config) {
  app.add_option("--model", config.model_dir,
                 "Model directory as Hugging Face lays it out: config.json, *.safetensors, "
                 "tokenizer.json (required)")
      ->required();
  app.add_option("--backend", config.backend, "What computes: cpu or cuda")
      ->check(CLI::IsMember({"cpu", "cuda"}));
  app.add_option("--cpu_dtype", config.cpu_dtype,
                 "What the CPU backend multiplies in: f32, or bf16 where the processor has it")
      ->check(CLI::IsMember({"f32", "bf16"}));
  app.add_option("--threads", config.threads,
                 "Threads of the CPU backend; 0: one for each processor")
      ->check(CLI::Range(0, 1024));
  app.add_option("--sliding_window", config.sliding_window,
                 "Attention window of every layer, in tokens; 0: as the model says")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 31));
  app.add_option("--turn_format", config.turn_format,
                 "How messages become text: the name of a format (chatml, llama3, plain) or a "
                 "file; absent: by the model's tokenizer");
}

void AddNetworkFlags(CLI::App& app, ServerConfig& config) {
  app.add_option("--host", config.host, "Address that gRPC listens on");
  app.add_option("--port", config.port, "Port that gRPC listens on; 0: any free one")
      ->check(CLI::Range(0, kMaxPort));
  app.add_option("--metrics_host", config.metrics_host, "Address that metrics listen on");
  app.add_option("--metrics_port", config.metrics_port,
                 "Port of http://METRICS_HOST:METRICS_PORT/metrics; 0: any free one")
      ->check(CLI::Range(0, kMaxPort));
  app.add_option("--port_file", config.port_file,
                 "When ready, write the gRPC and the metrics port here, one a line");
  app.add_option("--data_dir", config.data_dir,
                 "Directory of this server's data, made and locked; this version keeps sessions "
                 "in memory only and writes none of them here");
}

void AddLimitFlags(CLI::App& app, ServerConfig& config) {
  const auto positive = CLI::Range(int64_t{1}, kMaxInt64);
  app.add_option("--max_step_tokens", config.engine.max_step_tokens,
                 "Tokens that one step of the engine computes at most")
      ->check(CLI::Range(int64_t{16}, int64_t{1} << 20));
  app.add_option("--default_max_tokens", config.engine.default_max_tokens,
                 "max_tokens of a Generate that names none")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 31));
  app.add_option("--max_sessions", config.engine.max_sessions, "Sessions held at once")
      ->check(positive);
  app.add_option("--max_queued_requests", config.engine.max_queued_requests,
                 "Append and Generate calls accepted at once, running ones included")
      ->check(positive);
  app.add_option("--cache_bytes", config.engine.cache_bytes,
                 "Memory for sessions (keys and values, fast weights), such as 8GiB; 0: half of "
                 "the memory there is")
      ->transform(CLI::AsSizeValue(true));
  app.add_option("--max_message_bytes", config.max_message_bytes,
                 "Largest gRPC message accepted, such as 4MiB")
      ->transform(CLI::AsSizeValue(true) &
                  CLI::Range(int64_t{1024}, int64_t{std::numeric_limits<int>::max()}));
  app.add_option("--drain_seconds", config.drain_seconds,
                 "How long running streams may go on after SIGTERM")
      ->check(CLI::Range(0, 86400));
}

void AddLogFlags(CLI::App& app, ServerConfig& config) {
  app.add_option("--log_level", config.log_level, "debug, info, warn or error")
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}));
  app.add_option("--log_format", config.log_format, "text (key=value) or json, on standard error")
      ->check(CLI::IsMember({"text", "json"}));
}

}  // namespace

CommandLine ParseCommandLine(int argc, const char* const* argv, std::ostream& out,
                             std::ostream& error) {
  ServerConfig config;
  CLI::App app(kDescription, "mneme-server");
  app.option_defaults()->always_capture_default();
  app.set_version_flag("--version", std::string("mneme-server ") + kVersion);
  app.footer(kFooter);
  AddModelFlags(app, config);
  AddNetworkFlags(app, config);
  AddLimitFlags(app, config);
  AddLogFlags(app, config);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    return {std::nullopt, app.exit(success, out, error)};
  } catch (const CLI::ParseError& failure) {
    error << "mneme-server: " << failure.what() << " (see mneme-server --help)\n";
    return {std::nullopt, 1};
  }
  return {config, 0};
}

}  // namespace mneme
