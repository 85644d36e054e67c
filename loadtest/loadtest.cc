#include "loadtest/loadtest.h"

#include <CLI/CLI.hpp>
#include <fstream>
#include <map>
#include <ostream>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/version.h"
#include "loadtest/connection.h"
#include "loadtest/replay.h"
#include "loadtest/rpc_status.h"

namespace mneme {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;
constexpr int kExitInterrupted = 130;  // as a shell reports a program that Ctrl-C ended

constexpr char kHelp[] =
    R"(Open loop: sessions arrive as a Poisson process drawn from --seed, whatever the server
does, and latencies count from the scheduled time, so that a server that falls behind shows it. A
session is created, sends its requests one after the other, and is deleted. Numbers of tokens are
means: each is drawn between half and one and a half.

Examples:
  mneme-loadtest --rate 4 --duration_seconds 30
  mneme-loadtest --scenario mixed --rate 8 --cancel_fraction 0.1 --slow_reader_fraction 0.1 \
      --check_fraction 0.2 --json load.json
  mneme-loadtest --scenario ingest --rate 0.5 --document_tokens 32768

Ctrl-C ends the load early and still reports. Exit codes: 0 done; 1 a checked stream differs, a
request ended with an unexpected status, or the server does not answer; 2 a wrong command line; 130
interrupted. RESOURCE_EXHAUSTED is an answer like any other, and is counted.)";

void AddShape(CLI::App& app, LoadOptions& options) {
  static const std::map<std::string, Scenario> scenarios = {
      {"chat", Scenario::kChat}, {"ingest", Scenario::kIngest}, {"mixed", Scenario::kMixed}};
  app.add_option("--scenario", options.scenario, "chat (the default), ingest or mixed")
      ->transform(CLI::CheckedTransformer(scenarios));
  app.add_option("--rate", options.rate, "Sessions and documents that arrive in a second")
      ->check(CLI::Range(1e-3, 1e5));
  app.add_option("--document_share", options.document_share, "Documents among mixed arrivals")
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--duration_seconds", options.duration_s,
                 "How long they arrive; those under way then go on to their end")
      ->check(CLI::Range(1e-3, 1e6));
  app.add_option("--turns", options.turns, "Of a chat session")->check(CLI::Range(1, 10000));
  app.add_option("--think_seconds", options.think_s, "Mean time between an answer and a turn")
      ->check(CLI::Range(0.0, 1e6));
  app.add_option("--input_tokens", options.input_tokens, "Of a turn")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--output_tokens", options.output_tokens, "Of a turn")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--document_tokens", options.document_tokens, "Of a document")
      ->check(CLI::Range(1, 1 << 28));
  app.add_option("--piece_tokens", options.piece_tokens, "Of one message of a document")
      ->check(CLI::Range(1, 1 << 18));
  app.add_flag("--text", options.text, "Send words in place of token ids; numbers are of words");
  app.add_option("--seed", options.seed, "Of the schedule, inputs and sampling");
}

void AddConduct(CLI::App& app, LoadOptions& options) {
  app.add_option("--cancel_fraction", options.cancel_fraction,
                 "Streams given up at a random point, half with the call Cancel, half broken off")
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--slow_reader_fraction", options.slow_reader_fraction,
                 "Streams whose reader pauses after each event")
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--pause_seconds", options.pause_s, "The pause of a slow reader")
      ->check(CLI::Range(0.0, 1e3));
  app.add_option("--deadline_seconds", options.deadline_s,
                 "Of a request, from its scheduled time; 0: none")
      ->check(CLI::Range(0.0, 1e6));
  app.add_option(
         "--retry", options.retries,
         "Times that a request is sent again after RESOURCE_EXHAUSTED, when the server says")
      ->check(CLI::Range(0, 1000));
  app.add_option("--max_in_flight", options.max_in_flight,
                 "Sessions and documents at once; who comes beyond is dropped, and counted")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--check_fraction", options.check_fraction,
                 "Chat sessions that are greedy, and compared with themselves alone afterwards")
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--tie_tolerance", options.tie_tolerance,
                 "A checked stream may take the second best token if its log-probability is closer")
      ->check(CLI::Range(0.0, 10.0));
  app.add_flag("--keep", options.keep, "Do not delete the sessions");
  app.add_option("--json", options.json_file, "Also write the report to this file, as JSON");
}

void AddOptions(CLI::App& app, LoadOptions& options) {
  app.option_defaults()->always_capture_default();
  app.set_version_flag("--version", std::string("mneme-loadtest ") + kVersion);
  app.add_option("--server", options.server, "The server's address, host:port")
      ->envname("MNEME_SERVER");
  AddShape(app, options);
  AddConduct(app, options);
  app.footer(kHelp);
}

absl::StatusOr<v1::GetModelInfoResponse> AskServer(const Connection& connection,
                                                   LoadReport& report) {
  grpc::ClientContext server_context, model_context;
  v1::GetServerInfoResponse server;
  MNEME_RETURN_IF_ERROR(
      FromRpc("GetServerInfo", connection.admin->GetServerInfo(&server_context, {}, &server)));
  v1::GetModelInfoResponse model;
  MNEME_RETURN_IF_ERROR(
      FromRpc("GetModelInfo", connection.admin->GetModelInfo(&model_context, {}, &model)));
  if (report.options.text && !model.has_tokenizer()) {
    return absl::FailedPreconditionError("--text needs a tokenizer, which this model lacks");
  }
  report.server_version = server.version();
  report.backend = server.backend();
  report.model = model.name();
  return model;
}

absl::Status WriteJson(const LoadReport& report) {
  if (report.options.json_file.empty()) return absl::OkStatus();
  std::ofstream file(report.options.json_file);
  file << ReportJson(report) << std::flush;
  if (file) return absl::OkStatus();
  return absl::UnavailableError("cannot write " + report.options.json_file);
}

int Fail(std::ostream& err, const absl::Status& status) {
  err << "mneme-loadtest: " << status.message() << std::endl;
  return kExitFailed;
}

}  // namespace

absl::StatusOr<LoadReport> RunLoadtest(const LoadOptions& options, std::stop_token stop,
                                       const ProgressSink& progress) {
  const Connection connection = Connect(options.server);
  LoadReport report{.options = options};
  MNEME_ASSIGN_OR_RETURN(const v1::GetModelInfoResponse model, AskServer(connection, report));
  const auto sessions = RunLoad(options, connection, model.vocab_size(), stop, progress, report);
  absl::StatusOr<CheckReport> check =
      CompareWithAlone(options, connection, model.vocab_size(), sessions, stop);
  if (check.ok()) {
    report.check = *std::move(check);
  } else {
    ++report.unexpected[check.status().ToString()];
  }
  return report;
}

int RunLoadtestProgram(int argc, const char* const* argv, std::ostream& out, std::ostream& err,
                       bool err_is_terminal, std::stop_token stop) {
  CLI::App app("Puts load on a running mneme-server and measures its latencies.", "mneme-loadtest");
  LoadOptions options;
  AddOptions(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error, out, err) == 0 ? 0 : kExitUsage;
  }
  ProgressSink progress;
  if (err_is_terminal) {
    progress = [&err](const std::string& line) { err << "\r" << line << "\x1b[K" << std::flush; };
  }
  const absl::StatusOr<LoadReport> report = RunLoadtest(options, std::move(stop), progress);
  if (err_is_terminal) err << "\r\x1b[K" << std::flush;
  if (!report.ok()) return Fail(err, report.status());
  out << ReportText(*report) << std::flush;
  if (const absl::Status status = WriteJson(*report); !status.ok()) return Fail(err, status);
  if (!report->ok()) return kExitFailed;
  return report->interrupted ? kExitInterrupted : 0;
}

}  // namespace mneme
