#include "server/config.h"

#include <CLI/CLI.hpp>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "base/version.h"

namespace mneme {
namespace {

constexpr char kDescription[] =
    "Serves a language model whose sessions learn while they read, over gRPC (mneme.v1).\n"
    "Sessions live in --data_dir, or without one in memory. SIGTERM: health turns NOT_SERVING,\n"
    "running streams get --drain_seconds to end, and the program exits with 0.";

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
  CLI::Option* const data_dir =
      app.add_option("--data_dir", config.data_dir,
                     "Directory in which sessions are kept, made and locked; absent: they live in "
                     "memory and end with the process");
  app.add_option("--durability", config.durability,
                 "What is certain of what clients have been told: sync, it survives a loss of "
                 "power; async, the end of the process, and power but for the last 100 ms; none, "
                 "neither")
      ->check(CLI::IsMember({"sync", "async", "none"}))
      ->needs(data_dir);
  app.add_option("--operator_key_file", config.operator_key_file,
                 "File of 64 hexadecimal digits (openssl rand -hex 32), the same for servers that "
                 "trust each other: seals what sessions have learnt in their archives; absent: "
                 "archives hold the log alone")
      ->needs(data_dir);
  app.add_option("--max_archive_bytes", config.engine.archives.max_bytes,
                 "Largest session archive made or taken, such as 8GiB")
      ->transform(CLI::AsSizeValue(true));
}

// "a=3,b=1" has come as {"a=3", "b=1"}.
std::vector<std::pair<std::string, double>> ParseWeights(const std::vector<std::string>& values) {
  std::vector<std::pair<std::string, double>> weights;
  for (const std::string& value : values) {
    const size_t equals = value.find('=');
    double weight = 0;
    const bool is_number =
        equals != std::string::npos && absl::SimpleAtod(value.substr(equals + 1), &weight);
    if (!is_number || !ValidateSessionId(value.substr(0, equals)).ok() || !(weight >= 0.001) ||
        !(weight <= 1000)) {
      throw CLI::ValidationError("--tenant_weights",
                                 value + " is not TENANT=WEIGHT with a weight of 0.001 to 1000");
    }
    weights.emplace_back(value.substr(0, equals), weight);
  }
  return weights;
}

void AddCheckpointFlags(CLI::App& app, ServerConfig& config) {
  CheckpointPolicy& policy = config.engine.checkpoints;
  app.add_option("--checkpoint_tokens", policy.every_tokens,
                 "With --data_dir: a session's state is written to a checkpoint when it has read "
                 "so many tokens more, so that a restart need not compute them again; 0: not by "
                 "tokens")
      ->check(CLI::Range(int64_t{0}, kMaxInt64));
  app.add_option_function<double>(
         "--checkpoint_seconds",
         [&policy](double seconds) {
           policy.every = seconds > 0 ? absl::Seconds(seconds) : absl::InfiniteDuration();
         },
         "Likewise when a session has changed and its last checkpoint is so old; 0: not by time")
      ->default_str("600")
      ->check(CLI::Range(0.0, 1e9));
  app.add_option("--checkpoint_keep", policy.keep, "Checkpoints of a session that are kept")
      ->check(CLI::Range(1, 1000));
  app.add_option("--checkpoint_kv", config.engine.checkpoint_kv,
                 "Whether checkpoints hold keys and values. false: they are small and hold what "
                 "was learnt, but a restart computes the log anew from its beginning, or from the "
                 "newest checkpoint that has them");
}

void AddSchedulingFlags(CLI::App& app, ServerConfig& config) {
  const auto positive = CLI::Range(int64_t{1}, kMaxInt64);
  app.add_option_function<double>(
         "--target_inter_token_ms",
         [&config](double ms) { config.engine.target_inter_token = absl::Milliseconds(ms); },
         "While streams run, prefill is cut so that a step takes at most so long, or twice what "
         "decoding alone takes if that is more")
      ->default_str("8; 40 on cuda")
      ->check(CLI::Range(0.1, 60000.0));
  app.add_option("--max_queued_requests", config.engine.max_queued_requests,
                 "Append and Generate calls accepted at once, running ones included")
      ->check(positive);
  app.add_option("--max_queued_tokens", config.engine.max_queued_tokens,
                 "Tokens of their input accepted and not computed, at once")
      ->check(positive);
  app.add_option_function<double>(
         "--slow_reader_seconds",
         [&config](double seconds) { config.engine.slow_reader_limit = absl::Seconds(seconds); },
         "A stream whose client has read nothing for so long, while 256 events or its end wait, is "
         "cancelled; so is that of an archive whose next piece the client lets wait for so long")
      ->default_str("60")
      ->check(CLI::Range(0.1, 1e6));
  app.add_flag("--trust_tenant_metadata", config.trust_tenant_metadata,
               "Believe callers that name their tenant in the metadata mneme-tenant: only where "
               "nobody but your own front can reach this server");
  app.add_option_function<std::vector<std::string>>(
         "--tenant_weights",
         [&config](const std::vector<std::string>& values) {
           config.engine.tenant_weights = ParseWeights(values);
         },
         "Shares of tenants, such as alice=3,bob=1; 1 for those not named")
      ->delimiter(',')
      ->default_str("");
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
  app.add_option("--cache_bytes", config.engine.cache_bytes,
                 "Memory for sessions (keys and values, fast weights), such as 8GiB; 0: by "
                 "--device_memory_fraction")
      ->transform(CLI::AsSizeValue(true));
  app.add_option(
         "--device_memory_fraction", config.engine.device_memory_fraction,
         "Share of the memory that the model and its scratch memory leave free which is for "
         "sessions, unless --cache_bytes says how much is")
      ->default_str("0.5; 0.9 on cuda")
      ->check(CLI::Range(0.01, 1.0));
  app.add_option("--session_tokens", config.engine.session_tokens,
                 "Length of a typical session: on cuda the session memory is divided between keys "
                 "and values, fast weights and open chunks as one of this length needs them")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 31));
  app.add_option("--host_cache_bytes", config.engine.host_cache_bytes,
                 "Host memory, taken at the start, for the states of idle sessions that make room "
                 "on the device; 0: none, idle sessions leave for --data_dir, or stay there")
      ->transform(CLI::AsSizeValue(true));
  app.add_option("--tenant_host_cache_bytes", config.engine.tenant_host_cache_bytes,
                 "How much of it one tenant's sessions may take; 0: all")
      ->transform(CLI::AsSizeValue(true));
  app.add_option("--disk_cache_bytes", config.engine.disk_cache_bytes,
                 "What checkpoints of sessions may take in --data_dir; beyond it those of the "
                 "sessions not used for longest are erased, which are then computed again from "
                 "their log; 0: no limit")
      ->transform(CLI::AsSizeValue(true));
  app.add_option("--tenant_disk_cache_bytes", config.engine.tenant_disk_cache_bytes,
                 "How much of it one tenant's sessions may take; 0: all")
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

// What a flag that is absent is depends on the backend.
void SetBackendDefaults(const CLI::App& app, ServerConfig& config) {
  if (config.backend != "cuda") return;
  if (app.count("--max_step_tokens") == 0) config.engine.max_step_tokens = 4096;
  if (app.count("--target_inter_token_ms") == 0) {
    config.engine.target_inter_token = absl::Milliseconds(40);
  }
  if (app.count("--device_memory_fraction") == 0) config.engine.device_memory_fraction = 0.9;
}

}  // namespace

std::optional<Durability> ParseDurability(const std::string& name) {
  if (name == "sync") return Durability::kSync;
  if (name == "async") return Durability::kAsync;
  if (name == "none") return Durability::kNone;
  return std::nullopt;
}

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
  AddCheckpointFlags(app, config);
  AddLimitFlags(app, config);
  AddSchedulingFlags(app, config);
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
