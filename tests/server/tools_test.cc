// The parts without gRPC: command line, logs, metrics, files, signals.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netdb.h>
#include <signal.h>
#include <spdlog/sinks/ostream_sink.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "base/version.h"
#include "server/address.h"
#include "server/config.h"
#include "server/data_dir.h"
#include "server/lifecycle.h"
#include "server/logging.h"
#include "server/metrics.h"
#include "server/port_file.h"
#include "server/rate_meter.h"
#include "server/serial.h"
#include "tests/server/fake_engine.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// --- Command line. ---

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
                               "--port_file=p",
                               "--max_step_tokens=64",
                               "--default_max_tokens=9",
                               "--max_sessions=8",
                               "--max_queued_requests=7",
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
  EXPECT_EQ(config.port, 0);
  EXPECT_EQ(config.engine.max_step_tokens, 64);
  EXPECT_EQ(config.engine.default_max_tokens, 9);
  EXPECT_EQ(config.engine.max_sessions, 8);
  EXPECT_EQ(config.engine.max_queued_requests, 7);
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

// --- Logs. ---

std::string LogLine(LogFormat format, const LogFields& fields) {
  std::ostringstream out;
  Logger(spdlog::level::info, format, std::make_shared<spdlog::sinks::ostream_sink_mt>(out))
      .Info("request", fields);
  return out.str();
}

TEST(LoggerTest, WritesKeysAndValues) {
  const std::string line = LogLine(LogFormat::kText, {{"rpc", "Append"},
                                                      {"tokens", int64_t{12}},
                                                      {"ms", 1.5},
                                                      {"odd", "a b\"c\nd=\x01"},
                                                      {"empty", ""}});
  EXPECT_THAT(line,
              HasSubstr(R"(info request rpc=Append tokens=12 ms=1.500 odd="a b\"c\nd=\u0001" )"
                        R"(empty="")"));
  EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1);
}

TEST(LoggerTest, WritesAJsonObjectALine) {
  const std::string line = LogLine(LogFormat::kJson, {{"id", "a\"b\xff"}, {"tokens", int64_t{12}}});
  const auto json = nlohmann::json::parse(line);
  EXPECT_EQ(json.at("event"), "request");
  EXPECT_EQ(json.at("level"), "info");
  EXPECT_EQ(json.at("id"), "a\"b\xEF\xBF\xBD");
  EXPECT_EQ(json.at("tokens"), 12);
}

TEST(LoggerTest, LeavesOutWhatIsBelowItsLevel) {
  std::ostringstream out;
  const Logger logger(spdlog::level::info, LogFormat::kText,
                      std::make_shared<spdlog::sinks::ostream_sink_mt>(out));
  logger.Debug("quiet");
  EXPECT_EQ(out.str(), "");
}

// --- Metrics. ---

std::string Get(int port, const std::string& path) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int connection = socket(AF_INET, SOCK_STREAM, 0);
  EXPECT_EQ(connect(connection, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  const std::string request = "GET " + path + " HTTP/1.0\r\n\r\n";
  EXPECT_EQ(write(connection, request.data(), request.size()),
            static_cast<ssize_t>(request.size()));
  std::string response;
  char block[4096];
  for (ssize_t n = 0; (n = read(connection, block, sizeof(block))) > 0;) {
    response.append(block, static_cast<size_t>(n));
  }
  close(connection);
  return response;
}

TEST(MetricsTest, AScrapeShowsWhatWasCounted) {
  const Clock clock;
  Metrics metrics(clock);
  FakeEngine engine;
  metrics.OnTokensIn(7);
  metrics.OnTokensOut(3);
  metrics.OnStep(10, absl::Milliseconds(4));
  metrics.OnChunksClosed(2);
  metrics.OnFirstToken(absl::Milliseconds(30));
  metrics.OnNextToken(absl::Milliseconds(5));
  metrics.OnCallEnd("append", "OK", absl::Seconds(1));
  metrics.OnCallEnd("append", "NOT_FOUND", absl::Seconds(1));
  const auto server = MetricsServer::Start(
      "127.0.0.1", 0, {metrics.collectable(), std::make_shared<LoadCollector>(engine)});
  ASSERT_TRUE(server.ok()) << server.status();
  ASSERT_GT((*server)->port(), 0);
  const std::string text = Get((*server)->port(), "/metrics");
  for (const char* line : {"200 OK",
                           "mneme_tokens_in_total 7",
                           "mneme_tokens_out_total 3",
                           "mneme_chunk_updates_total 2",
                           "mneme_step_seconds_count 1",
                           "mneme_step_rows_sum 10",
                           "mneme_time_to_first_token_seconds_count 1",
                           "mneme_time_between_tokens_seconds_count 1",
                           "mneme_request_seconds_count{kind=\"append\"} 2",
                           "mneme_sessions 3",
                           "mneme_running_requests 2",
                           "mneme_waiting_requests 0",
                           "mneme_pending_tokens 0",
                           "mneme_device_bytes{state=\"used\"} 10",
                           "mneme_device_bytes{state=\"reserved\"} 20",
                           "mneme_device_bytes{state=\"limit\"} 30",
                           "mneme_host_bytes 0",
                           "mneme_build_info",
                           "process_resident_memory_bytes",
                           "process_cpu_seconds_total"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  EXPECT_THAT(text, HasSubstr("code=\"NOT_FOUND\""));
}

TEST(MetricsTest, APortInUseIsAStatus) {
  const auto first = MetricsServer::Start("127.0.0.1", 0, {});
  ASSERT_TRUE(first.ok());
  const auto second = MetricsServer::Start("127.0.0.1", (*first)->port(), {});
  EXPECT_TRUE(absl::IsUnavailable(second.status())) << second.status();
}

TEST(RateMeterTest, CountsTheLastTenSeconds) {
  RateMeter meter;
  const absl::Time start = absl::FromUnixSeconds(1000);
  meter.Add(start, 50);
  meter.Add(start + absl::Seconds(9), 50);
  EXPECT_EQ(meter.PerSecond(start + absl::Seconds(9)), 10);
  EXPECT_EQ(meter.PerSecond(start + absl::Seconds(10)), 5);
  meter.Add(start + absl::Seconds(10), 20);  // takes the first one's place
  EXPECT_EQ(meter.PerSecond(start + absl::Seconds(10)), 7);
  EXPECT_EQ(meter.PerSecond(start + absl::Seconds(60)), 0);
}

// --- Threads and signals. ---

TEST(SerialTest, RunsAStepAfterEveryCallAndNeverTwoAtATime) {
  Serial serial;
  int inside = 0;  // unguarded on purpose: steps exclude each other
  int steps = 0;
  std::atomic<int> asked = 0;
  int served = 0;
  const auto step = [&] {
    EXPECT_EQ(++inside, 1);
    ++steps;
    served = asked.load();
    --inside;
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 1000; ++j) {
        ++asked;
        serial.Run(step);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(served, 4000);
  EXPECT_LE(steps, 4000);
}

TEST(SerialTest, AStepMayCallForAnother) {
  Serial serial;
  int steps = 0;
  const std::function<void()> step = [&] {
    if (++steps < 3) serial.Run(step);
  };
  serial.Run(step);
  EXPECT_EQ(steps, 3);
}

TEST(StopSignalTest, AFailureEndsTheWait) {
  StopSignal stop;
  std::thread([&stop] {
    stop.Fail(absl::InternalError("first"));
    stop.Fail(absl::InternalError("second"));
  }).join();
  EXPECT_EQ(stop.Wait(), absl::InternalError("first"));
}

TEST(StopSignalTest, ASignalEndsTheWaitAndASecondOneTheProcess) {
  const pid_t child = fork();
  if (child == 0) {
    StopSignal stop;
    kill(getpid(), SIGTERM);
    if (!stop.Wait().ok()) _exit(1);
    kill(getpid(), SIGTERM);
    _exit(2);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status)) << status;
  EXPECT_EQ(WTERMSIG(status), SIGTERM);
}

// --- Files and addresses. ---

class FileTest : public ::testing::Test {
 protected:
  FileTest() {
    std::string pattern = std::filesystem::temp_directory_path() / "mneme-server-test-XXXXXX";
    dir_ = mkdtemp(pattern.data());
  }
  ~FileTest() override { std::filesystem::remove_all(dir_); }

  std::filesystem::path dir_;
};

TEST_F(FileTest, ADataDirectoryHasOneOwner) {
  {
    const auto first = DataDir::Lock(dir_ / "a" / "b");
    ASSERT_TRUE(first.ok()) << first.status();
    EXPECT_TRUE(absl::IsFailedPrecondition(DataDir::Lock(dir_ / "a" / "b").status()));
  }
  EXPECT_TRUE(DataDir::Lock(dir_ / "a" / "b").ok());
}

TEST_F(FileTest, ADataDirectoryMustBeOne) {
  std::ofstream(dir_ / "file") << "x";
  EXPECT_TRUE(absl::IsInvalidArgument(DataDir::Lock(dir_ / "file").status()));
}

TEST_F(FileTest, ThePortFileHoldsBothPorts) {
  ASSERT_TRUE(WritePortFile(dir_ / "ports", 1234, 5678).ok());
  std::ostringstream content;
  content << std::ifstream(dir_ / "ports").rdbuf();
  EXPECT_EQ(content.str(), "1234\n5678\n");
  EXPECT_FALSE(std::filesystem::exists(dir_ / "ports.tmp"));
  EXPECT_TRUE(absl::IsInvalidArgument(WritePortFile(dir_ / "none" / "ports", 1, 2)));
}

TEST(AddressTest, BracketsIpv6) {
  EXPECT_EQ(JoinHostPort("127.0.0.1", 1), "127.0.0.1:1");
  EXPECT_EQ(JoinHostPort("::1", 1), "[::1]:1");
  EXPECT_EQ(JoinHostPort("[::1]", 1), "[::1]:1");
}

}  // namespace
}  // namespace mneme
