// mneme tokenize, mneme detokenize: the server's tokenizer.

#include <CLI/CLI.hpp>
#include <iterator>
#include <memory>
#include <ostream>
#include <vector>

#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "client/commands.h"
#include "client/connection.h"
#include "client/status_text.h"
#include "client/text_pieces.h"
#include "mneme/v1/inference.grpc.pb.h"

namespace mneme {
namespace {

struct TokenizeOptions {
  std::string text;
  bool parse_special = false;
  std::vector<uint32_t> ids;
};

absl::Status RunTokenize(const TokenizeOptions& options, Console& console,
                         const Connection& connection) {
  v1::TokenizeRequest request;
  request.set_text(options.text);
  if (options.text == "-") {
    request.mutable_text()->assign(std::istreambuf_iterator<char>(console.in), {});
  }
  if (ValidUtf8Prefix(request.text()) < request.text().size()) {
    return absl::InvalidArgumentError("the text is not UTF-8");
  }
  request.set_parse_special(options.parse_special);
  Call call(connection);
  const auto stub = v1::InferenceService::NewStub(connection.channel());
  v1::TokenizeResponse response;
  MNEME_RETURN_IF_ERROR(FromRpc(stub->Tokenize(call.context(), request, &response)));
  console.out << absl::StrJoin(response.ids(), " ") << std::endl;
  return absl::OkStatus();
}

absl::Status RunDetokenize(const TokenizeOptions& options, Console& console,
                           const Connection& connection) {
  v1::DetokenizeRequest request;
  request.mutable_ids()->Add(options.ids.begin(), options.ids.end());
  Call call(connection);
  const auto stub = v1::InferenceService::NewStub(connection.channel());
  v1::DetokenizeResponse response;
  MNEME_RETURN_IF_ERROR(FromRpc(stub->Detokenize(call.context(), request, &response)));
  console.out << response.text() << std::endl;
  return absl::OkStatus();
}

}  // namespace

void AddTokenizeCommands(CLI::App& app, CommandLine& line) {
  auto options = std::make_shared<TokenizeOptions>();
  CLI::App* tokenize = app.add_subcommand("tokenize", "Print the token ids of a text");
  tokenize->add_option("text", options->text, "The text; - reads standard input")->required();
  tokenize->add_flag("--parse_special", options->parse_special, "It may spell special tokens");
  tokenize->footer("Example:\n  mneme tokenize \"Hello there.\"");
  tokenize->callback([options, &line] {
    line.run = [options, &line](const Connection& connection) {
      return RunTokenize(*options, line.console, connection);
    };
  });
  CLI::App* detokenize = app.add_subcommand("detokenize", "Print the text of token ids");
  detokenize->add_option("ids", options->ids, "The token ids")->required();
  detokenize->footer("Example:\n  mneme detokenize 17 204 9");
  detokenize->callback([options, &line] {
    line.run = [options, &line](const Connection& connection) {
      return RunDetokenize(*options, line.console, connection);
    };
  });
}

}  // namespace mneme
