#ifndef MNEME_CLIENT_COMMANDS_H_
#define MNEME_CLIENT_COMMANDS_H_

#include <functional>

#include "absl/status/status.h"
#include "client/console.h"

namespace CLI {  // NOLINT(readability-identifier-naming): the library's name
class App;
}

namespace mneme {

class Connection;

// What the command line is turned into. A command's Add function hangs its subcommand, flags and
// help on the app; if the user chose it, `run` is set when the line has been parsed.
struct CommandLine {
  Console& console;
  std::function<absl::Status(const Connection&)> run;
};

// Each borrows both arguments, which outlive the parsed command's run.
void AddAppendCommand(CLI::App& app, CommandLine& line);
void AddArchiveCommands(CLI::App& sessions, CommandLine& line);  // export, import
void AddChatCommand(CLI::App& app, CommandLine& line);
void AddEvalCommand(CLI::App& app, CommandLine& line);
void AddGenerateCommand(CLI::App& app, CommandLine& line);
void AddInspectCommand(CLI::App& app, CommandLine& line);
void AddServerCommands(CLI::App& app, CommandLine& line);  // health, info
void AddSessionsCommand(CLI::App& app, CommandLine& line);
void AddTokenizeCommands(CLI::App& app, CommandLine& line);  // tokenize, detokenize

}  // namespace mneme

#endif  // MNEME_CLIENT_COMMANDS_H_
