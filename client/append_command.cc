// mneme append: reads a file into a session.

#include <CLI/CLI.hpp>
#include <cmath>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "client/commands.h"
#include "client/progress_bar.h"
#include "client/session_calls.h"
#include "client/streams.h"
#include "client/text_pieces.h"

namespace mneme {
namespace {

constexpr size_t kPieceBytes = 16 * 1024;
constexpr int kPieceIds = 4096;

constexpr char kHelp[] =
    R"(The text is sent in pieces of at most 16 KiB, cut between words so that it is tokenised as one.
The server takes them as fast as it learns; the bar's end is an estimate from the first piece.
Nothing is retried by itself. With --request_id a broken append can be given again, unchanged:
what is already logged is skipped.

Examples:
  mneme append book.txt --session reader --create
  zcat log.gz | mneme append - --session reader
  mneme append ids.txt --token_ids --session reader --logprobs
  mneme append turns.json --messages --session reader
      turns.json: [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hi."}])";

struct AppendOptions {
  std::string file;
  std::string session_id;
  std::string request_id;
  std::optional<uint64_t> expected_position;
  std::optional<uint64_t> expected_version;
  bool create = false;
  bool token_ids = false;
  bool messages = false;
  bool logprobs = false;
  bool parse_special = false;
};

// Where the inputs of an append come from, one after the other.
class Source {
 public:
  Source(std::istream& in, const AppendOptions& options)
      : in_(in), options_(options), pieces_(in, kPieceBytes) {}

  absl::StatusOr<bool> Next(v1::AppendRequest& request) {
    request.set_parse_special(options_.parse_special);
    if (options_.token_ids) return NextIds(*request.mutable_token_ids());
    if (options_.messages) return AllMessages(*request.mutable_messages());
    MNEME_ASSIGN_OR_RETURN(std::string piece, pieces_.Next());
    if (piece.empty()) return false;
    request.set_text(std::move(piece));
    return true;
  }

 private:
  absl::StatusOr<bool> NextIds(v1::TokenIds& ids) {
    uint32_t id = 0;
    while (ids.ids_size() < kPieceIds && in_ >> id) ids.add_ids(id);
    if (!in_ && !in_.eof()) {
      return absl::InvalidArgumentError("--token_ids: not a token id between white space");
    }
    return ids.ids_size() > 0;
  }

  absl::StatusOr<bool> AllMessages(v1::Messages& messages) {
    if (std::exchange(messages_read_, true)) return false;
    const nlohmann::json turns = nlohmann::json::parse(in_, nullptr, /*allow_exceptions=*/false);
    if (!turns.is_array()) return absl::InvalidArgumentError("--messages: not a JSON list");
    for (const nlohmann::json& turn : turns) {
      const bool whole = turn.is_object() && turn.contains("role") && turn["role"].is_string() &&
                         turn.contains("content") && turn["content"].is_string();
      if (!whole) return absl::InvalidArgumentError("--messages: a turn needs role and content");
      v1::Message* message = messages.add_messages();
      message->set_role(turn["role"].get<std::string>());
      message->set_content(turn["content"].get<std::string>());
    }
    return true;
  }

  std::istream& in_;
  const AppendOptions& options_;
  TextPieces pieces_;
  bool messages_read_ = false;
};

// What the progresses of one append add up to.
struct Totals {
  uint64_t begin_tokens = 0;  // the session's position before
  uint64_t begin_chunks = 0;
  v1::AppendProgress last;
  double logprob_sum = 0;
  uint64_t logprob_count = 0;

  void Add(const v1::AppendProgress& progress) {
    for (const float logprob : progress.logprobs()) {
      if (std::isnan(logprob)) continue;  // a session's first token
      logprob_sum += logprob;
      ++logprob_count;
    }
    last = progress;
  }
  uint64_t tokens() const {
    return last.position() > begin_tokens ? last.position() - begin_tokens : 0;
  }
  uint64_t chunks() const {
    return last.chunks_closed() > begin_chunks ? last.chunks_closed() - begin_chunks : 0;
  }
};

std::string Describe(const Totals& totals, double elapsed_s) {
  const double tokens_per_s = elapsed_s > 0 ? static_cast<double>(totals.tokens()) / elapsed_s : 0;
  return absl::StrFormat("position %d  %.0f tokens/s  %d chunks learnt", totals.last.position(),
                         tokens_per_s, totals.chunks());
}

// A guess at the number of tokens of `size_bytes` of text like the file's beginning; 0: unknown.
double EstimateTokens(const Connection& connection, std::istream& in, double size_bytes) {
  TextPieces pieces(in, kPieceBytes);
  const absl::StatusOr<std::string> piece = pieces.Next();
  in.clear();
  in.seekg(0);
  if (!piece.ok() || piece->empty()) return 0;
  const absl::StatusOr<uint64_t> tokens = CountTokens(connection, *piece);
  if (!tokens.ok()) return 0;
  return static_cast<double>(*tokens) * size_bytes / static_cast<double>(piece->size());
}

double SizeBytes(std::istream& in) {
  in.seekg(0, std::ios::end);
  const double size_bytes = static_cast<double>(in.tellg());
  in.clear();
  in.seekg(0);
  return size_bytes;
}

absl::StatusOr<v1::AppendRequest> FirstRequest(const AppendOptions& options) {
  v1::AppendRequest request;
  request.set_session_id(options.session_id);
  request.set_request_id(options.request_id);
  request.set_return_logprobs(options.logprobs);
  if (options.expected_position) request.set_expected_position(*options.expected_position);
  if (options.expected_version) request.set_expected_version(*options.expected_version);
  return request;
}

absl::Status RunAppend(const AppendOptions& options, Console& console,
                       const Connection& connection) {
  std::ifstream file;
  const bool is_file = options.file != "-";
  if (is_file) file.open(options.file, std::ios::binary);
  if (is_file && !file) return absl::NotFoundError("cannot open " + options.file);
  std::istream& in = is_file ? file : console.in;

  MNEME_ASSIGN_OR_RETURN(const v1::Session session,
                         OpenSession(connection, options.session_id, options.create));
  const bool estimable = is_file && !options.token_ids && !options.messages;
  const double expected_tokens = estimable ? EstimateTokens(connection, in, SizeBytes(in)) : 0;
  MNEME_ASSIGN_OR_RETURN(const v1::AppendRequest first, FirstRequest(options));
  Source source(in, options);
  Totals totals{.begin_tokens = session.position(), .begin_chunks = ChunksClosed(session)};
  totals.last.set_position(session.position());
  ProgressBar bar("append", console);
  MNEME_RETURN_IF_ERROR(AppendStream(
      connection, first, [&](v1::AppendRequest& request) { return source.Next(request); },
      [&](const v1::AppendProgress& progress) {
        totals.Add(progress);
        const double done = static_cast<double>(totals.tokens());
        bar.Update(expected_tokens > 0 ? std::min(0.99, done / expected_tokens) : 0,
                   Describe(totals, bar.elapsed_s()));
      }));
  bar.Finish(Describe(totals, bar.elapsed_s()));
  console.out << absl::StrFormat("session %s  position %d  version %d\n", session.session_id(),
                                 totals.last.position(), totals.last.version());
  if (totals.logprob_count > 0) {
    const double mean = totals.logprob_sum / static_cast<double>(totals.logprob_count);
    console.out << absl::StrFormat("perplexity %.4f over %d tokens\n", std::exp(-mean),
                                   totals.logprob_count);
  }
  return absl::OkStatus();
}

}  // namespace

void AddAppendCommand(CLI::App& app, CommandLine& line) {
  CLI::App* command = app.add_subcommand("append", "Read a file into a session");
  auto options = std::make_shared<AppendOptions>();
  command->add_option("file", options->file, "The file; - reads standard input")->required();
  command->add_option("--session", options->session_id, "The session that reads")->required();
  command->add_flag("--create", options->create, "Make the session if there is none of this id");
  auto* ids = command->add_flag("--token_ids", options->token_ids,
                                "The file holds token ids between white space");
  command->add_flag("--messages", options->messages, "The file holds turns as JSON")->excludes(ids);
  command->add_flag("--logprobs", options->logprobs, "Print the text's perplexity");
  command->add_flag("--parse_special", options->parse_special,
                    "The text may spell special tokens; never for text you do not trust");
  command->add_option("--request_id", options->request_id, "Makes the same append safe to repeat");
  command->add_option("--expected_position", options->expected_position,
                      "Refuse unless the session stands here");
  command->add_option("--expected_version", options->expected_version,
                      "Refuse unless the session has this version");
  command->footer(kHelp);
  command->callback([options, &line] {
    line.run = [options, &line](const Connection& connection) {
      return RunAppend(*options, line.console, connection);
    };
  });
}

}  // namespace mneme
