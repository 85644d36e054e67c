// mneme-loadtest against the program mneme-server with the bundled model.

#include "loadtest/loadtest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "loadtest/connection.h"
#include "loadtest/load.h"
#include "loadtest/replay.h"

namespace mneme {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint32_t kVocabSize = 1408;  // of the bundled model

// The server as a process of its own, on free ports; ready when made.
class ServerProcess {
 public:
  ServerProcess() {
    std::string pattern = std::filesystem::temp_directory_path() / "mneme-loadtest-XXXXXX";
    dir_ = mkdtemp(pattern.data());
    std::array<int, 2> ends{};
    EXPECT_EQ(pipe(ends.data()), 0);
    child_ = fork();
    if (child_ == 0) {
      dup2(ends[1], STDOUT_FILENO);
      dup2(ends[1], STDERR_FILENO);
      close(ends[0]);
      Exec();
    }
    close(ends[1]);
    // Ready when it says so; read on to nothing when it failed to start.
    FILE* output = fdopen(ends[0], "r");
    std::array<char, 4096> line{};
    while (fgets(line.data(), static_cast<int>(line.size()), output) != nullptr) {
      if (std::string(line.data()).find("listening on") != std::string::npos) break;
    }
    output_ = output;
    std::ifstream(dir_ / "ports") >> port_;
  }

  ~ServerProcess() {
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
    fclose(output_);
    std::filesystem::remove_all(dir_);
  }

  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }
  std::filesystem::path dir() const { return dir_; }

 private:
  [[noreturn]] void Exec() const {
    const std::string port_file = "--port_file=" + (dir_ / "ports").string();
    execl(MNEME_SERVER_PROGRAM, MNEME_SERVER_PROGRAM, "--model=models/mneme-demo", "--port=0",
          "--metrics_port=0", "--threads=1", "--cache_bytes=512MiB", "--drain_seconds=0",
          "--log_level=error", port_file.c_str(), nullptr);
    _exit(127);
  }

  std::filesystem::path dir_;
  pid_t child_ = -1;
  FILE* output_ = nullptr;
  int port_ = 0;
};

class LoadtestServerTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { server_ = new ServerProcess; }
  static void TearDownTestSuite() { delete server_; }

  // A short load of everything at once.
  static LoadOptions Mixed() {
    LoadOptions options;
    options.server = server_->address();
    options.scenario = Scenario::kMixed;
    options.rate = 12;
    options.document_share = 0.3;
    options.duration_s = 2;
    options.think_s = 0.05;
    options.input_tokens = 40;
    options.output_tokens = 16;
    options.document_tokens = 600;
    options.piece_tokens = 100;
    options.cancel_fraction = 0.3;
    options.slow_reader_fraction = 0.2;
    options.pause_s = 0.005;
    options.check_fraction = 0.7;
    return options;
  }

  static size_t SessionsOnServer() {
    const Connection connection = Connect(server_->address());
    grpc::ClientContext context;
    v1::ListSessionsResponse response;
    EXPECT_TRUE(connection.sessions->ListSessions(&context, {}, &response).ok());
    return static_cast<size_t>(response.sessions_size());
  }

  // The program with these arguments, `--server` added; its output comes last.
  static int RunProgram(std::vector<std::string> arguments, std::string* output) {
    arguments.insert(arguments.begin(), {"mneme-loadtest", "--server", server_->address()});
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    std::ostringstream out;
    const int exit_code = RunLoadtestProgram(static_cast<int>(argv.size()), argv.data(), out, out,
                                             /*err_is_terminal=*/false, {});
    *output = out.str();
    return exit_code;
  }

  static void ExpectOneStatusEach(const LoadReport& report) {
    for (const auto& [name, counts] : report.calls) {
      EXPECT_EQ(counts.started, counts.ended_count()) << name;
    }
  }

  static inline ServerProcess* server_ = nullptr;
};

TEST_F(LoadtestServerTest, EveryRequestEndsOnceAndCheckedStreamsAreThoseOfTheSessionAlone) {
  const auto report = RunLoadtest(Mixed(), {}, nullptr);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->ok()) << ReportText(*report);
  ExpectOneStatusEach(*report);
  EXPECT_EQ(report->arrivals, static_cast<int64_t>(MakeSchedule(Mixed()).size()));
  EXPECT_EQ(report->dropped, 0);
  EXPECT_GT(report->calls.at("Generate").ended.at("OK"), 0);
  EXPECT_GT(report->calls.at("Generate").ended.at("CANCELLED"), 0);
  EXPECT_GT(report->calls.at("Append").ended.at("OK"), 0);
  EXPECT_GT(report->check.tokens, 0);
  EXPECT_THAT(report->check.differences, IsEmpty());
  EXPECT_GE(report->first_token.count(), report->calls.at("Generate").ended.at("OK"));
  EXPECT_EQ(SessionsOnServer(), 0u);
}

TEST_F(LoadtestServerTest, AWrongTokenIsFoundWithItsSessionAndPosition) {
  LoadOptions options = Mixed();
  options.scenario = Scenario::kChat;
  options.cancel_fraction = 0;
  const Connection connection = Connect(options.server);
  LoadReport report;
  std::vector<CheckedSession> sessions =
      RunLoad(options, connection, kVocabSize, {}, nullptr, report);
  ASSERT_FALSE(sessions.empty() || sessions[0].results.size() < 2);
  StreamResult& result = sessions[0].results.at(1);
  result.ids.at(3) ^= 1;
  const auto check = CompareWithAlone(options, connection, kVocabSize, sessions, {});
  ASSERT_TRUE(check.ok()) << check.status();
  ASSERT_EQ(check->differences.size(), 1u);
  EXPECT_EQ(check->differences[0].session_id, sessions[0].id);
  EXPECT_EQ(check->differences[0].position, result.finished->position() - result.ids.size() + 3);
  EXPECT_EQ(check->not_compared, 1);  // the third turn
  EXPECT_EQ(SessionsOnServer(), 0u);
}

TEST_F(LoadtestServerTest, SampledTextWithoutTokenIdsWorks) {
  std::string output;
  EXPECT_EQ(RunProgram({"--scenario=mixed", "--rate=5", "--duration_seconds=1", "--text",
                        "--document_tokens=100", "--input_tokens=10", "--output_tokens=5",
                        "--turns=2", "--think_seconds=0", "--check_fraction=0.5"},
                       &output),
            0)
      << output;
  EXPECT_THAT(output, HasSubstr("Generate"));
}

TEST_F(LoadtestServerTest, ArrivalsBeyondTheBoundAreCountedAsDropped) {
  LoadOptions options = Mixed();
  options.max_in_flight = 1;
  options.rate = 200;
  options.duration_s = 0.5;
  const auto report = RunLoadtest(options, {}, nullptr);
  ASSERT_TRUE(report.ok()) << report.status();
  const int64_t begun = report->calls.at("CreateSession").started;
  EXPECT_GT(report->dropped, 0);
  EXPECT_EQ(report->arrivals, static_cast<int64_t>(MakeSchedule(options).size()));
  EXPECT_EQ(report->arrivals, report->dropped + begun);
  EXPECT_EQ(report->start_lag.count(), report->arrivals);
}

TEST_F(LoadtestServerTest, AStopEndsTheLoadEarlyWithAReport) {
  LoadOptions options = Mixed();
  options.duration_s = 3600;
  std::stop_source stop;
  // The first progress comes after a second of load.
  const auto report =
      RunLoadtest(options, stop.get_token(), [&](const std::string&) { stop.request_stop(); });
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->interrupted);
  EXPECT_TRUE(report->ok()) << ReportText(*report);
  ExpectOneStatusEach(*report);
  EXPECT_EQ(SessionsOnServer(), 0u);
}

TEST_F(LoadtestServerTest, ADeadlineThatPassesIsCountedAndNoFailure) {
  LoadOptions options = Mixed();
  options.deadline_s = 1e-6;  // has passed when the session is there
  options.cancel_fraction = 0;
  const auto report = RunLoadtest(options, {}, nullptr);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->ok()) << ReportText(*report);
  ExpectOneStatusEach(*report);
  for (const char* call : {"Generate", "Append"}) {
    const CallCounts& counts = report->calls.at(call);
    EXPECT_EQ(counts.ended.at("DEADLINE_EXCEEDED"), counts.started);
  }
  EXPECT_EQ(report->check.streams, 0);
  EXPECT_GT(report->check.not_compared, 0);
}

TEST_F(LoadtestServerTest, TheProgramWritesItsReportAndKeepsSessionsIfAsked) {
  const std::string file = server_->dir() / "report.json";
  std::string output;
  ASSERT_EQ(RunProgram({"--rate=4", "--duration_seconds=1", "--turns=1", "--output_tokens=4",
                        "--input_tokens=4", "--keep", "--json", file},
                       &output),
            0)
      << output;
  EXPECT_THAT(output, AllOf(HasSubstr("mneme-demo"), HasSubstr("time to first token")));
  std::ifstream stream(file);
  const nlohmann::json json = nlohmann::json::parse(stream);
  EXPECT_EQ(json["ok"], true);
  EXPECT_EQ(json["server"]["backend"], "cpu");
  EXPECT_EQ(json["arrivals"], SessionsOnServer());
  EXPECT_EQ(json["calls"].count("DeleteSession"), 0u);
}

TEST_F(LoadtestServerTest, AWrongCommandLineAndAMissingServerAreErrors) {
  std::string output;
  EXPECT_EQ(RunProgram({"--rate=-1"}, &output), 2);
  EXPECT_EQ(RunProgram({"--scenario=storm"}, &output), 2);
  EXPECT_EQ(RunProgram({"--help"}, &output), 0);
  EXPECT_THAT(output, HasSubstr("--max_in_flight"));
  LoadOptions options = Mixed();
  options.server = "127.0.0.1:1";
  EXPECT_EQ(RunLoadtest(options, {}, nullptr).status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace mneme
