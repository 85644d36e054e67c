// mneme chat: a conversation in one session.

#include <CLI/CLI.hpp>
#include <istream>
#include <memory>
#include <ostream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "client/commands.h"
#include "client/sampling_flags.h"
#include "client/session_calls.h"
#include "client/status_text.h"
#include "client/streams.h"
#include "client/text_pieces.h"

namespace mneme {
namespace {

constexpr char kCommands[] = R"(/ask TEXT   ask without teaching: the session keeps no trace of it
/freeze     stop learning (the session still reads); again: learn on
/session    show the session
/new        go on in a new session
/help       show this
/quit       leave; the session stays on the server
)";

constexpr char kHelp[] =
    R"(Each line is a turn; the model learns from its own replies, too, one chunk of tokens after the
other. Within the chat: /ask TEXT, /freeze, /session, /new, /help, /quit. Ctrl-C ends a reply, or
the program while it waits.

Examples:
  mneme chat
  mneme chat --session reader --temperature 0
  echo "Hello." | mneme chat)";

struct ChatOptions {
  std::string session_id;
  SamplingFlags sampling;
};

class Chat {
 public:
  Chat(const ChatOptions& options, Console& console, const Connection& connection)
      : options_(options), console_(console), connection_(connection) {}

  absl::Status Run() {
    MNEME_RETURN_IF_ERROR(Open());
    std::string line;
    while (!quit_ && ReadLine(line)) {
      absl::Status status = Handle(std::string(absl::StripAsciiWhitespace(line)));
      if (status.ok()) continue;
      if (!console_.in_is_terminal) return status;  // a script must not go on with half a chat
      console_.err << StatusText(status) << std::endl;
    }
    console_.err << "To go on: mneme chat --session " << session_.session_id() << std::endl;
    return absl::OkStatus();
  }

 private:
  bool ReadLine(std::string& line) {
    if (console_.in_is_terminal) console_.out << "> " << std::flush;
    return static_cast<bool>(std::getline(console_.in, line));
  }

  absl::Status Open() {
    if (options_.session_id.empty()) return New();
    MNEME_ASSIGN_OR_RETURN(session_,
                           OpenSession(connection_, options_.session_id, /*create=*/true));
    ShowSession();
    return absl::OkStatus();
  }

  absl::Status New() {
    MNEME_ASSIGN_OR_RETURN(session_, CreateSession(connection_, v1::CreateSessionRequest()));
    ShowSession();
    return absl::OkStatus();
  }

  absl::Status Handle(const std::string& line) {
    if (line.empty()) return absl::OkStatus();
    if (line[0] != '/') return Turn(line, /*learn=*/true);
    const size_t space = std::min(line.find(' '), line.size());
    const std::string command = line.substr(0, space);
    const std::string rest(absl::StripLeadingAsciiWhitespace(line.substr(space)));
    if (command == "/ask" && !rest.empty()) return Turn(rest, /*learn=*/false);
    if (command == "/freeze") return ToggleFreeze();
    if (command == "/session") return Refresh();
    if (command == "/new") return New();
    if (command == "/quit") return Quit();
    console_.err << kCommands;
    return absl::OkStatus();
  }

  absl::Status Quit() {
    quit_ = true;
    return absl::OkStatus();
  }

  absl::Status Turn(const std::string& content, bool learn) {
    if (ValidUtf8Prefix(content) < content.size()) {
      return absl::InvalidArgumentError("the line is not UTF-8");
    }
    v1::GenerateRequest request;
    request.set_session_id(session_.session_id());
    if (!learn) request.set_learn(false);
    v1::Message* message = request.mutable_messages()->add_messages();
    message->set_role("user");
    message->set_content(content);
    MNEME_RETURN_IF_ERROR(FillSampling(options_.sampling, request));
    v1::Finished finished;
    const absl::Status status =
        GenerateStream(connection_, request, [&](const v1::GenerateEvent& event) {
          if (event.has_finished()) finished = event.finished();
          console_.out << event.token().text() << std::flush;
        });
    console_.out << std::endl;
    MNEME_RETURN_IF_ERROR(status);
    ShowLearning(finished);
    return absl::OkStatus();
  }

  void ShowLearning(const v1::Finished& finished) {
    const uint64_t closed = finished.usage().chunks_closed();
    if (closed == 0) return;
    const uint64_t last = ChunksClosed(finished.version());
    const std::string chunks = closed == 1 ? absl::StrCat("chunk ", last)
                                           : absl::StrCat("chunks ", last - closed + 1, "-", last);
    console_.out << absl::StrFormat("[%s %s, position %d]\n",
                                    session_.controls().freeze() ? "frozen, read" : "learnt",
                                    chunks, finished.position())
                 << std::flush;
  }

  absl::Status ToggleFreeze() {
    v1::UpdateSessionRequest request;
    request.mutable_session()->set_session_id(session_.session_id());
    request.mutable_session()->mutable_controls()->set_freeze(!session_.controls().freeze());
    request.mutable_update_mask()->add_paths("controls.freeze");
    MNEME_ASSIGN_OR_RETURN(session_, UpdateSession(connection_, request));
    console_.out << (session_.controls().freeze() ? "[frozen: reads, learns nothing]\n"
                                                  : "[learns again]\n")
                 << std::flush;
    return absl::OkStatus();
  }

  absl::Status Refresh() {
    MNEME_ASSIGN_OR_RETURN(session_, GetSession(connection_, session_.session_id()));
    ShowSession();
    return absl::OkStatus();
  }

  void ShowSession() {
    console_.err << absl::StrFormat(
        "session %s  model %s  position %d  chunks %d (of %d tokens)%s\n", session_.session_id(),
        session_.model(), session_.position(), ChunksClosed(session_), session_.chunk_size(),
        session_.controls().freeze() ? "  frozen" : "");
    if (console_.in_is_terminal) console_.err << "/help lists what else can be typed" << std::endl;
  }

  const ChatOptions& options_;
  Console& console_;
  const Connection& connection_;
  v1::Session session_;
  bool quit_ = false;
};

}  // namespace

void AddChatCommand(CLI::App& app, CommandLine& line) {
  CLI::App* command = app.add_subcommand("chat", "Talk to a session that learns");
  auto options = std::make_shared<ChatOptions>();
  command->add_option("--session", options->session_id,
                      "The session to go on with, made if there is none; absent: a new one");
  AddSamplingFlags(*command, options->sampling);
  command->footer(kHelp);
  command->callback([options, &line] {
    line.run = [options, &line](const Connection& connection) {
      return Chat(*options, line.console, connection).Run();
    };
  });
}

}  // namespace mneme
