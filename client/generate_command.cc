// mneme generate: continues a session, or a text of its own.

#include <google/protobuf/util/json_util.h>

#include <CLI/CLI.hpp>
#include <iterator>
#include <memory>
#include <optional>
#include <ostream>

#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "client/commands.h"
#include "client/sampling_flags.h"
#include "client/streams.h"
#include "client/text_pieces.h"

namespace mneme {
namespace {

constexpr char kHelp[] =
    R"(The text goes to standard output as it is generated, a summary to standard error.
Without --session the request has a session of its own, which is thrown away.

Examples:
  mneme generate "Once upon a time" --max_tokens 50
  mneme generate "What is Anna's door code?" --role user --session reader --no_learn
  mneme generate --session reader --temperature 0        continue without new input
  mneme generate - < prompt.txt
  mneme generate "Hello" --json                          one event a line)";

struct GenerateOptions {
  std::optional<std::string> prompt;
  std::string session_id;
  std::string request_id;
  std::string role;
  std::optional<uint64_t> expected_position;
  std::optional<uint64_t> expected_version;
  std::optional<uint32_t> logprobs;
  bool no_learn = false;
  bool parse_special = false;
  bool json = false;
  SamplingFlags sampling;
};

absl::Status FillPrompt(const GenerateOptions& options, Console& console,
                        v1::GenerateRequest& request) {
  if (!options.prompt) return absl::OkStatus();
  std::string prompt = *options.prompt;
  if (prompt == "-") prompt.assign(std::istreambuf_iterator<char>(console.in), {});
  if (ValidUtf8Prefix(prompt) < prompt.size()) {
    return absl::InvalidArgumentError("the prompt is not UTF-8");
  }
  if (options.role.empty()) {
    request.set_text(prompt);
    return absl::OkStatus();
  }
  v1::Message* message = request.mutable_messages()->add_messages();
  message->set_role(options.role);
  message->set_content(prompt);
  return absl::OkStatus();
}

absl::StatusOr<v1::GenerateRequest> MakeRequest(const GenerateOptions& options, Console& console) {
  v1::GenerateRequest request;
  MNEME_RETURN_IF_ERROR(FillPrompt(options, console, request));
  MNEME_RETURN_IF_ERROR(FillSampling(options.sampling, request));
  request.set_session_id(options.session_id);
  request.set_request_id(options.request_id);
  request.set_parse_special(options.parse_special);
  if (options.expected_position) request.set_expected_position(*options.expected_position);
  if (options.expected_version) request.set_expected_version(*options.expected_version);
  if (options.logprobs) request.set_logprobs(*options.logprobs);
  if (options.no_learn) request.set_learn(false);
  return request;
}

void PrintJson(const v1::GenerateEvent& event, std::ostream& out) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string json;
  if (google::protobuf::util::MessageToJsonString(event, &json, options).ok()) {
    out << json << std::endl;
  }
}

void PrintText(const v1::GenerateEvent& event, Console& console) {
  if (event.has_token()) {
    console.out << event.token().text() << std::flush;
    return;
  }
  const v1::Finished& finished = event.finished();
  console.out << std::endl;
  console.err << absl::StrFormat(
      "[%s  %d + %d tokens, %d chunks closed, position %d, version %d]\n",
      std::string(absl::StripPrefix(v1::FinishReason_Name(finished.reason()), "FINISH_REASON_")),
      finished.usage().prompt_tokens(), finished.usage().completion_tokens(),
      finished.usage().chunks_closed(), finished.position(), finished.version());
}

absl::Status RunGenerate(const GenerateOptions& options, Console& console,
                         const Connection& connection) {
  MNEME_ASSIGN_OR_RETURN(const v1::GenerateRequest request, MakeRequest(options, console));
  return GenerateStream(connection, request, [&](const v1::GenerateEvent& event) {
    options.json ? PrintJson(event, console.out) : PrintText(event, console);
  });
}

}  // namespace

void AddGenerateCommand(CLI::App& app, CommandLine& line) {
  CLI::App* command = app.add_subcommand("generate", "Continue a session or a prompt");
  auto options = std::make_shared<GenerateOptions>();
  command->add_option("prompt", options->prompt, "Appended first; - reads standard input");
  command->add_option("--session", options->session_id, "The session to continue");
  command->add_option("--role", options->role,
                      "Send the prompt as a turn of this role, such as user; the model answers");
  command->add_flag("--no_learn", options->no_learn, "Leave no trace in the session");
  command->add_flag("--json", options->json, "Print each event as a line of JSON");
  command->add_option("--logprobs", options->logprobs,
                      "With --json: log-probabilities of each token and of so many others");
  command->add_flag("--parse_special", options->parse_special,
                    "The prompt may spell special tokens; never for text you do not trust");
  command->add_option("--request_id", options->request_id, "Makes the same request safe to repeat");
  command->add_option("--expected_position", options->expected_position,
                      "Refuse unless the session stands here");
  command->add_option("--expected_version", options->expected_version,
                      "Refuse unless the session has this version");
  AddSamplingFlags(*command, options->sampling);
  command->footer(kHelp);
  command->callback([options, &line] {
    line.run = [options, &line](const Connection& connection) {
      return RunGenerate(*options, line.console, connection);
    };
  });
}

}  // namespace mneme
