#ifndef MNEME_SERVER_CONFIG_H_
#define MNEME_SERVER_CONFIG_H_

// The command line of mneme-server.

#include <cstdint>
#include <optional>
#include <ostream>
#include <string>

#include "engine/engine.h"
#include "storage/log_writer.h"

namespace mneme {

// What the command line asks for; the initial values are the defaults that --help shows.
struct ServerConfig {
  std::string model_dir;       // empty: random weights
  std::string random_weights;  // the shape's name; empty: a model directory
  uint64_t random_seed = 0;    // of random weights
  int64_t chunk = 0;           // C of random weights; 0: as In-Place TTT has it

  std::string backend = "cpu";            // "cpu" or "cuda"
  std::string cpu_dtype = "f32";          // "f32" or "bf16"
  int threads = 0;                        // of the CPU backend; 0: one for each processor
  int cuda_device = 0;                    // as CUDA numbers them
  std::string dtype = "bf16";             // of the CUDA backend: "bf16" or "f32"
  std::string delta_accumulate = "bf16";  // of the CUDA backend: "fp32" or "bf16"
  std::string delta_read = "bf16";        // of the CUDA backend: "fp32", "bf16" or "fp8_e4m3"
  int64_t sliding_window = 0;             // tokens; 0: as the model says
  std::string turn_format;                // name or file; empty: by the model's tokenizer

  std::string host = "127.0.0.1";
  int port = 50051;  // 0: any
  std::string metrics_host = "127.0.0.1";
  int metrics_port = 9090;          // 0: any
  std::string data_dir;             // empty: sessions end with the process
  std::string durability = "sync";  // of the sessions in data_dir: see ParseDurability
  std::string operator_key_file;    // empty: archives hold no states
  std::string port_file;            // empty: none

  EngineOptions engine;
  bool trust_tenant_metadata = false;
  int64_t max_message_bytes = 4 << 20;
  int drain_seconds = 20;

  std::string log_level = "info";
  std::string log_format = "text";  // "text" or "json"
};

// "sync", "async" or "none"; nothing for anything else.
std::optional<Durability> ParseDurability(const std::string& name);

// Outcome of ParseCommandLine: a configuration, or the program's exit code.
struct CommandLine {
  std::optional<ServerConfig> config;
  int exit_code = 0;  // without a configuration: 0 after --help and --version
};

// Parses the arguments. Help and version go to `out`, one line about what is wrong to `error`.
CommandLine ParseCommandLine(int argc, const char* const* argv, std::ostream& out,
                             std::ostream& error);

}  // namespace mneme

#endif  // MNEME_SERVER_CONFIG_H_
