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
  CLI::Option* const model =
      app.add_option("--model", config.model_dir,
                     "Model directory as Hugging Face lays it out: config.json, *.safetensors, "
                     "tokenizer.json (required, or --random_weights)");
  CLI::Option* const random =
      app.add_option("--random_weights", config.random_weights,
                     "Serve random weights of a published shape instead of a model, for "
                     "measurements: qwen3-0.6b, qwen3-4b, qwen3-8b or llama-3.1-8b; token ids only")
          ->excludes(model);
  app.add_option("--random_seed", config.random_seed, "Seed of the random weights")->needs(random);
  app.add_option("--chunk", config.chunk,
                 "Chunk size of random weights, in tokens; 0: as In-Place TTT has it")
      ->needs(random)
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 31));
  app.add_option("--sliding_window", config.sliding_window,
                 "Attention window of every layer, in tokens; 0: as the model says")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 31));
  app.add_option("--turn_format", config.turn_format,
                 "How messages become text: the name of a format (chatml, llama3, plain) or a "
                 "file; absent: by the model's tokenizer")
      ->excludes(random);
}

void AddBackendFlags(CLI::App& app, ServerConfig& config) {
  app.add_option("--backend", config.backend, "What computes: cpu or cuda")
      ->check(CLI::IsMember({"cpu", "cuda"}));
  app.add_option("--cpu_dtype", config.cpu_dtype,
                 "What the CPU backend multiplies in: f32, or bf16 where the processor has it")
      ->check(CLI::IsMember({"f32", "bf16"}));
  app.add_option("--threads", config.threads,
                 "Threads of the CPU backend; 0: one for each processor")
      ->check(CLI::Range(0, 1024));
  app.add_option("--cuda_device", config.cuda_device, "GPU of the CUDA backend")
      ->check(CLI::Range(0, 1024));
  app.add_option("--dtype", config.dtype,
                 "What the CUDA backend keeps weights, activations and the KV cache in: bf16, or "
                 "f32 for comparisons")
      ->check(CLI::IsMember({"bf16", "f32"}));
  app.add_option("--delta_accumulate", config.delta_accumulate,
                 "What updates of the fast weights accumulate in on CUDA: fp32, or bf16 rounded so "
                 "that small updates survive on average")
      ->check(CLI::IsMember({"fp32", "bf16"}));
  app.add_option("--delta_read", config.delta_read,
                 "What tokens read of the fast weights on CUDA: fp32, bf16 or fp8_e4m3; a copy "
                 "where it is not what they accumulate in")
      ->check(CLI::IsMember({"fp32", "bf16", "fp8_e4m3"}));
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
      ->default_str("512; 4096 on cuda")
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
                 "Memory for sessions (keys and values, fast weights), such as 8GiB; 0: by "
                 "--device_memory_fraction")
      ->transform(CLI::AsSizeValue(true));
  app.add_option("--device_memory_fraction", config.engine.device_memory_fraction,
                 "Share of the memory that the model leaves free which is for sessions, unless "
                 "--cache_bytes says how much is")
      ->default_str("0.5; 0.9 on cuda")
      ->check(CLI::Range(0.01, 1.0));
  app.add_option("--session_tokens", config.engine.session_tokens,
                 "Length of a typical session: on cuda the session memory is divided between keys "
                 "and values, fast weights and open chunks as one of this length needs them")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 31));
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

// What a flag that is absent is depends on the backend.
void SetBackendDefaults(const CLI::App& app, ServerConfig& config) {
  if (config.backend != "cuda") return;
  if (app.count("--max_step_tokens") == 0) config.engine.max_step_tokens = 4096;
  if (app.count("--device_memory_fraction") == 0) config.engine.device_memory_fraction = 0.9;
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
  AddBackendFlags(app, config);
  AddNetworkFlags(app, config);
  AddLimitFlags(app, config);
  AddLogFlags(app, config);
  try {
    app.parse(argc, argv);
    if (config.model_dir.empty() && config.random_weights.empty()) {
      throw CLI::RequiredError("--model, or --random_weights,");
    }
  } catch (const CLI::Success& success) {
    return {std::nullopt, app.exit(success, out, error)};
  } catch (const CLI::ParseError& failure) {
    error << "mneme-server: " << failure.what() << " (see mneme-server --help)\n";
    return {std::nullopt, 1};
  }
  SetBackendDefaults(app, config);
  return {config, 0};
}

}  // namespace mneme
