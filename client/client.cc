#include "client/client.h"

#include <CLI/CLI.hpp>
#include <ostream>
#include <string>

#include "base/version.h"
#include "client/commands.h"
#include "client/connection.h"
#include "client/status_text.h"

namespace mneme {
namespace {

constexpr int kExitError = 1;
constexpr int kExitUsage = 2;
constexpr int kExitInterrupted = 130;  // as a shell reports a program that Ctrl-C ended

constexpr char kExamples[] = R"(Examples:
  mneme chat                                   talk to a session that learns
  mneme append book.txt --session b --create   read a file into a session
  mneme generate "Who is it?" --session b      continue it
  mneme sessions list
Each command explains itself: mneme append --help. Exit codes: 0 done, 1 an error,
2 a wrong command line, 130 interrupted by Ctrl-C.)";

void AddGlobalOptions(CLI::App& app, ConnectionOptions& options) {
  app.set_version_flag("--version", std::string("mneme ") + kVersion);
  app.add_option("--server", options.server, "The server's address, host:port")
      ->envname("MNEME_SERVER")
      ->take_last()
      ->capture_default_str();
  app.add_option("--timeout", options.timeout_s, "Seconds that a call may take; 0: no limit")
      ->check(CLI::Range(0.0, 1e9))
      ->capture_default_str();
  app.require_subcommand(1);
  app.fallthrough();  // global options may stand behind the subcommand, too
  app.footer(kExamples);
}

}  // namespace

int RunClient(int argc, const char* const* argv, Console& console, Interrupter& interrupter) {
  CLI::App app("A client of mneme-server, which serves models that learn while they read.",
               "mneme");
  ConnectionOptions options;
  CommandLine line{console, nullptr};
  AddGlobalOptions(app, options);
  AddChatCommand(app, line);
  AddAppendCommand(app, line);
  AddGenerateCommand(app, line);
  AddSessionsCommand(app, line);
  AddInspectCommand(app, line);
  AddEvalCommand(app, line);
  AddTokenizeCommands(app, line);
  AddServerCommands(app, line);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error, console.out, console.err) == 0 ? 0 : kExitUsage;
  }
  const absl::Status status = line.run(Connection(options, interrupter));
  console.out << std::flush;
  if (status.ok()) return 0;
  if (interrupter.interrupted()) {
    console.err << "mneme: interrupted" << std::endl;
    return kExitInterrupted;
  }
  console.err << "mneme: " << StatusText(status) << std::endl;
  return kExitError;
}

}  // namespace mneme
