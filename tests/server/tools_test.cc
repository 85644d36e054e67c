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

#include "server/address.h"
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
  metrics.OnUpdates({.updates = 6, .clipped = 3, .skipped = 1});
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
                           "mneme_chunks_closed_total 2",
                           "mneme_updates_applied_total 5",
                           "mneme_updates_clipped_total 3",
                           "mneme_updates_skipped_total 1",
                           "mneme_waiting_chunks 7",
                           "mneme_step_seconds_count 1",
                           "mneme_step_rows_sum 10",
                           "mneme_time_to_first_token_seconds_count 1",
                           "mneme_time_between_tokens_seconds_count 1",
                           "mneme_request_seconds_count{kind=\"append\"} 2",
                           "mneme_sessions 3",
                           "mneme_running_requests 2",
                           "mneme_waiting_requests 0",
                           "mneme_queued_requests 4",
                           "mneme_idle_sessions 1",
                           "mneme_step_use{budget=\"time\"} 0.5",
                           "mneme_tenant_share{tenant=\"alice\"} 0.25",
                           "mneme_tenant_requests{tenant=\"alice\"} 2",
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
