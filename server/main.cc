// mneme-server: the one place where its parts are put together.

#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/statusor.h"
#include "base/status_macros.h"
#include "base/version.h"
#include "engine/clock.h"
#include "engine/engine.h"
#include "kernels/backend_library.h"
#include "kernels/cpu/cpu_backend.h"
#include "server/address.h"
#include "server/config.h"
#include "server/data_dir.h"
#include "server/lifecycle.h"
#include "server/logging.h"
#include "server/metrics.h"
#include "server/model_identity.h"
#include "server/model_loader.h"
#include "server/port_file.h"
#include "server/server.h"
#include "storage/files.h"
#include "storage/key_files.h"
#include "storage/session_store.h"

namespace mneme {
namespace {

Logger MakeLogger(const ServerConfig& config) {
  return Logger(spdlog::level::from_str(config.log_level),
                config.log_format == "json" ? LogFormat::kJson : LogFormat::kText);
}

absl::StatusOr<std::unique_ptr<Backend>> CreateBackend(const ServerConfig& config) {
  if (config.backend == "cuda") {
    // The names are those that the flags allow.
    return LoadCudaBackend({.device = config.cuda_device,
                            .dtype = config.dtype == "bf16" ? DType::kBF16 : DType::kF32,
                            .delta_accumulate = *ParseDeltaType(config.delta_accumulate),
                            .delta_read = *ParseDeltaType(config.delta_read)});
  }
  CpuBackendOptions options;
  options.matmul_dtype = config.cpu_dtype == "bf16" ? DType::kBF16 : DType::kF32;
  options.threads = config.threads;
  return CreateCpuBackend(options);
}

absl::StatusOr<LoadedModel> Load(const ServerConfig& config, Backend& backend,
                                 const Logger& logger) {
  absl::StatusOr<LoadedModel> loaded =
      config.random_weights.empty()
          ? LoadModel({config.model_dir, config.sliding_window, config.turn_format}, backend,
                      logger)
          : MakeRandomModel(
                {config.random_weights, config.random_seed, config.chunk, config.sliding_window},
                backend, logger);
  if (!loaded.ok()) return loaded;
  const std::string& dtype = config.backend == "cuda" ? config.dtype : config.cpu_dtype;
  loaded->description.dtype = dtype == "bf16" ? "bfloat16" : "float32";
  loaded->model.fingerprint = StateFingerprint(loaded->description.fingerprint,
                                               {config.backend, dtype, config.delta_accumulate});
  return loaded;
}

absl::StatusOr<std::optional<DataDir>> LockDataDir(const ServerConfig& config,
                                                   const Logger& logger) {
  if (config.data_dir.empty()) {
    logger.Info("sessions live in memory and end with this process");
    return std::nullopt;
  }
  return DataDir::Lock(config.data_dir);
}

// The sessions in the data directory, which this process has locked; nothing without one.
absl::StatusOr<std::optional<SessionStore::Opened>> OpenStore(const ServerConfig& config,
                                                              const Logger& logger) {
  if (config.data_dir.empty()) return std::nullopt;
  // The names are those that the flag allows.
  MNEME_ASSIGN_OR_RETURN(
      SessionStore::Opened stored,
      SessionStore::Open({.data_dir = config.data_dir,
                          .log = {.durability = *ParseDurability(config.durability)}}));
  logger.Info("sessions are kept",
              {{"data_dir", config.data_dir},
               {"durability", config.durability},
               {"sessions", static_cast<int64_t>(stored.listing.sessions.size())}});
  for (const ListedSession& session : stored.listing.sessions) {
    if (session.damage.ok()) continue;
    logger.Error("a session cannot be read",
                 {{"store_id", session.id.ToHex()}, {"status", session.damage.ToString()}});
  }
  for (const auto& [id, status] : stored.listing.damaged) {
    logger.Error("a session cannot be read, not even its name",
                 {{"store_id", id.ToHex()}, {"status", status.ToString()}});
  }
  return stored;
}

// The engine's options, with the key that a file holds.
absl::StatusOr<EngineOptions> ToEngineOptions(const ServerConfig& config) {
  EngineOptions options = config.engine;
  if (config.operator_key_file.empty()) return options;
  MNEME_ASSIGN_OR_RETURN(options.archives.operator_key,
                         ReadOperatorKey(*RealFileSystem(), config.operator_key_file));
  return options;
}

absl::Status Announce(const ServerConfig& config, const Server& server,
                      const MetricsServer& metrics, const Logger& logger) {
  const std::string address = JoinHostPort(config.host, server.port());
  logger.Info(
      "serving",
      {{"address", address},
       {"metrics", "http://" + JoinHostPort(config.metrics_host, metrics.port()) + "/metrics"}});
  if (!config.port_file.empty()) {
    MNEME_RETURN_IF_ERROR(WritePortFile(config.port_file, server.port(), metrics.port()));
  }
  std::cout << "listening on " << address << std::endl;
  return absl::OkStatus();
}

// Loads, serves until a signal or a failure, and returns the exit code.
absl::StatusOr<int> Run(const ServerConfig& config) {
  StopSignal stop;  // before any thread
  const Logger logger = MakeLogger(config);
  const Clock clock;
  logger.Info("starting", {{"version", std::string(kVersion)}, {"backend", config.backend}});
  MNEME_ASSIGN_OR_RETURN(auto backend, CreateBackend(config));
  MNEME_ASSIGN_OR_RETURN(const std::optional<DataDir> data_dir, LockDataDir(config, logger));
  MNEME_ASSIGN_OR_RETURN(LoadedModel loaded, Load(config, *backend, logger));

  MNEME_ASSIGN_OR_RETURN(std::optional<SessionStore::Opened> stored, OpenStore(config, logger));

  MNEME_ASSIGN_OR_RETURN(const EngineOptions options, ToEngineOptions(config));
  Metrics metrics(clock, &logger);
  const std::shared_ptr<const Tokenizer> tokenizer = loaded.model.tokenizer;
  logger.Info("starting the engine", {{"max_step_tokens", options.max_step_tokens}});
  MNEME_ASSIGN_OR_RETURN(auto engine,
                         Engine::Create(options, std::move(backend), std::move(loaded.model), clock,
                                        metrics, std::move(stored)));
  const ServiceContext context = {
      .engine = *engine,
      .metrics = metrics,
      .logger = logger,
      .clock = clock,
      .codec = {tokenizer.get(), loaded.turns ? &*loaded.turns : nullptr,
                engine->config().vocab_size},
      .model = loaded.description,
      .backend = config.backend,
      .max_message_bytes = config.max_message_bytes,
      .trust_tenant_metadata = config.trust_tenant_metadata,
      .start_time = clock.Now(),
  };
  MNEME_ASSIGN_OR_RETURN(
      const auto metrics_server,
      MetricsServer::Start(config.metrics_host, config.metrics_port,
                           {metrics.collectable(), std::make_shared<LoadCollector>(*engine)}));
  MNEME_ASSIGN_OR_RETURN(const auto server, Server::Start(config.host, config.port, context));
  MNEME_RETURN_IF_ERROR(Announce(config, *server, *metrics_server, logger));
  return ServeUntilStopped(stop, *server, *engine, absl::Seconds(config.drain_seconds), logger);
}

}  // namespace
}  // namespace mneme

int main(int argc, char** argv) {
  const mneme::CommandLine line = mneme::ParseCommandLine(argc, argv, std::cout, std::cerr);
  if (!line.config) return line.exit_code;
  const absl::StatusOr<int> exit_code = mneme::Run(*line.config);
  if (exit_code.ok()) return *exit_code;
  std::cerr << "mneme-server: " << exit_code.status().message() << '\n';
  return 1;
}
