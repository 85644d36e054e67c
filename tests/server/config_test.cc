// The server's command line.

#include "server/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <vector>

#include "base/version.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

struct Parsed {
  CommandLine line;
  std::string out;
  std::string error;
};

Parsed Parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "mneme-server");
  std::ostringstream out;
  std::ostringstream error;
  Parsed parsed;
  parsed.line = ParseCommandLine(static_cast<int>(arguments.size()), arguments.data(), out, error);
  parsed.out = out.str();
  parsed.error = error.str();
  return parsed;
}

TEST(ConfigTest, TheModelAloneSufficesAndListensOnThisHostOnly) {
  const Parsed parsed = Parse({"--model", "dir"});
  ASSERT_TRUE(parsed.line.config.has_value());
  EXPECT_EQ(parsed.line.config->model_dir, "dir");
  EXPECT_EQ(parsed.line.config->host, "127.0.0.1");
  EXPECT_EQ(parsed.line.config->metrics_host, "127.0.0.1");
  EXPECT_EQ(parsed.line.config->port, 50051);
  EXPECT_EQ(parsed.line.config->max_message_bytes, 4 << 20);
}

TEST(ConfigTest, ReadsEveryFlag) {
  const Parsed parsed = Parse({"--model=m",
                               "--backend=cuda",
                               "--cpu_dtype=bf16",
                               "--threads=3",
                               "--cuda_device=1",
                               "--dtype=f32",
                               "--delta_accumulate=fp32",
                               "--delta_read=fp8_e4m3",
                               "--sliding_window=128",
                               "--turn_format=chatml",
                               "--host=::1",
                               "--port=0",
                               "--metrics_host=0.0.0.0",
                               "--metrics_port=0",
                               "--data_dir=d",
                               "--durability=async",
                               "--port_file=p",
                               "--max_step_tokens=64",
                               "--default_max_tokens=9",
                               "--max_sessions=8",
                               "--max_queued_requests=7",
                               "--max_queued_tokens=900",
                               "--target_inter_token_ms=12.5",
                               "--slow_reader_seconds=3",
                               "--trust_tenant_metadata",
                               "--tenant_weights=alice=3,bob=0.5",
                               "--cache_bytes=8GiB",
                               "--device_memory_fraction=0.25",
                               "--session_tokens=100",
                               "--max_message_bytes=1MiB",
                               "--drain_seconds=15",
                               "--log_level=debug",
                               "--log_format=json"});
  ASSERT_TRUE(parsed.line.config.has_value()) << parsed.error;
  const ServerConfig& config = *parsed.line.config;
  EXPECT_EQ(config.backend, "cuda");
  EXPECT_EQ(config.cpu_dtype, "bf16");
  EXPECT_EQ(config.threads, 3);
  EXPECT_EQ(config.cuda_device, 1);
  EXPECT_EQ(config.dtype, "f32");
  EXPECT_EQ(config.delta_accumulate, "fp32");
  EXPECT_EQ(config.delta_read, "fp8_e4m3");
  EXPECT_EQ(config.sliding_window, 128);
  EXPECT_EQ(ParseDurability(config.durability), Durability::kAsync);
  EXPECT_EQ(config.port, 0);
  EXPECT_EQ(config.engine.max_step_tokens, 64);
  EXPECT_EQ(config.engine.default_max_tokens, 9);
  EXPECT_EQ(config.engine.max_sessions, 8);
  EXPECT_EQ(config.engine.max_queued_requests, 7);
  EXPECT_EQ(config.engine.max_queued_tokens, 900);
  EXPECT_EQ(config.engine.target_inter_token, absl::Microseconds(12500));
  EXPECT_EQ(config.engine.slow_reader_limit, absl::Seconds(3));
  EXPECT_TRUE(config.trust_tenant_metadata);
  EXPECT_EQ(config.engine.tenant_weights,
            (std::vector<std::pair<std::string, double>>{{"alice", 3}, {"bob", 0.5}}));
  EXPECT_EQ(config.engine.cache_bytes, int64_t{8} << 30);
  EXPECT_EQ(config.engine.device_memory_fraction, 0.25);
  EXPECT_EQ(config.engine.session_tokens, 100);
  EXPECT_EQ(config.max_message_bytes, 1 << 20);
  EXPECT_EQ(config.drain_seconds, 15);
  EXPECT_EQ(config.log_format, "json");
}

TEST(ConfigTest, DefaultsGoByTheBackend) {
  const Parsed cpu = Parse({"--model=m"});
  const Parsed cuda = Parse({"--model=m", "--backend=cuda"});
  ASSERT_TRUE(cpu.line.config && cuda.line.config);
  EXPECT_EQ(cpu.line.config->engine.max_step_tokens, 512);
  EXPECT_EQ(cpu.line.config->engine.device_memory_fraction, 0.5);
  EXPECT_EQ(cuda.line.config->engine.max_step_tokens, 4096);
  EXPECT_EQ(cuda.line.config->engine.device_memory_fraction, 0.9);
  EXPECT_EQ(cpu.line.config->engine.target_inter_token, absl::Milliseconds(8));
  EXPECT_EQ(cuda.line.config->engine.target_inter_token, absl::Milliseconds(40));
}

TEST(ConfigTest, DurabilityIsOfADataDirectory) {
  const Parsed parsed = Parse({"--model=m", "--data_dir=d"});
  ASSERT_TRUE(parsed.line.config.has_value());
  EXPECT_EQ(ParseDurability(parsed.line.config->durability), Durability::kSync);
  EXPECT_EQ(Parse({"--model=m", "--durability=sync"}).line.exit_code, 1);
  EXPECT_EQ(Parse({"--model=m", "--operator_key_file=k"}).line.exit_code, 1);
  EXPECT_EQ(Parse({"--model=m", "--data_dir=d", "--durability=often"}).line.exit_code, 1);
}

TEST(ConfigTest, WeightsThatAreNoneAreRefused) {
  for (const char* weights : {"alice", "alice=", "alice=0", "=1", "a b=1", "alice=1e9"}) {
    const Parsed parsed = Parse({"--model=m", "--tenant_weights", weights});
    EXPECT_FALSE(parsed.line.config.has_value()) << weights;
    EXPECT_EQ(parsed.line.exit_code, 1);
  }
}

TEST(ConfigTest, RandomWeightsStandInForAModel) {
  const Parsed parsed = Parse({"--random_weights=qwen3-4b", "--random_seed=7", "--chunk=1024"});
  ASSERT_TRUE(parsed.line.config.has_value()) << parsed.error;
  EXPECT_EQ(parsed.line.config->model_dir, "");
  EXPECT_EQ(parsed.line.config->random_weights, "qwen3-4b");
  EXPECT_EQ(parsed.line.config->random_seed, 7u);
  EXPECT_EQ(parsed.line.config->chunk, 1024);
}

TEST(ConfigTest, RefusesWhatMakesNoSenseInOneLine) {
  for (const std::vector<const char*>& arguments :
       std::vector<std::vector<const char*>>{{},
                                             {"--model=m", "--backend=tpu"},
                                             {"--model=m", "--random_weights=qwen3-4b"},
                                             {"--model=m", "--chunk=64"},
                                             {"--model=m", "--device_memory_fraction=1.5"},
                                             {"--model=m", "--delta_read=int8"},
                                             {"--model=m", "--port=65536"},
                                             {"--model=m", "--port=-1"},
                                             {"--model=m", "--unknown"},
                                             {"--model=m", "--max_sessions=0"},
                                             {"--model=m", "--cache_bytes=much"},
                                             {"--model=m", "--max_message_bytes=3GiB"},
                                             {"--model=m", "--drain_seconds=nan"},
                                             {"--model=m", "stray"}}) {
    const Parsed parsed = Parse(arguments);
    EXPECT_FALSE(parsed.line.config.has_value()) << parsed.out;
    EXPECT_EQ(parsed.line.exit_code, 1);
    EXPECT_THAT(parsed.error, StartsWith("mneme-server: "));
    EXPECT_EQ(std::count(parsed.error.begin(), parsed.error.end(), '\n'), 1) << parsed.error;
  }
}

TEST(ConfigTest, HelpNamesEveryFlagAndVersionTheVersion) {
  const Parsed help = Parse({"--help"});
  EXPECT_EQ(help.line.exit_code, 0);
  for (const char* flag : {"--model", "--backend", "--port", "--metrics_port", "--data_dir",
                           "--cache_bytes", "--drain_seconds", "--log_format", "--version"}) {
    EXPECT_THAT(help.out, HasSubstr(flag));
  }
  const Parsed version = Parse({"--version"});
  EXPECT_EQ(version.line.exit_code, 0);
  EXPECT_THAT(version.out, HasSubstr(kVersion));
}

}  // namespace
}  // namespace mneme
