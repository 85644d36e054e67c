// mneme eval: what a session still knows of a long document, with and without learning.

#include <CLI/CLI.hpp>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <ostream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "client/commands.h"
#include "client/progress_bar.h"
#include "client/recall_document.h"
#include "client/recall_table.h"
#include "client/session_calls.h"
#include "client/streams.h"

namespace mneme {
namespace {

constexpr size_t kPieceBytes = 4096;
constexpr uint32_t kAnswerTokens = 32;  // more than any answer takes

constexpr char kHelp[] =
    R"(Generates documents that tell codes among filler, reads each into two sessions, one that learns
and one that is frozen, and asks both for every code with learning off. An answer counts if it is
the code, exactly. The last line is "recall learning=0.NN frozen=0.NN".

Examples:
  mneme eval
  mneme eval --documents 16 --tokens 32768 --facts 64 --seed 7 --json)";

struct EvalOptions {
  std::string task_file = "models/mneme-demo/recall_task.json";
  uint32_t documents = 1;
  RecallOptions recall;
  bool keep = false;
  bool json = false;
};

// One of the two sessions that read a document. Deleted with the object, unless it is released.
class Reader {
 public:
  static absl::StatusOr<std::unique_ptr<Reader>> Open(const Connection& connection, bool freeze) {
    v1::CreateSessionRequest request;
    request.mutable_controls()->set_freeze(freeze);
    (*request.mutable_labels())["made_by"] = "mneme eval";
    MNEME_ASSIGN_OR_RETURN(const v1::Session session, CreateSession(connection, request));
    return std::unique_ptr<Reader>(new Reader(connection, session.session_id(), freeze));
  }

  ~Reader() {
    if (!released_) DeleteSession(connection_, id_).IgnoreError();
  }

  const std::string& id() const { return id_; }
  const char* name() const { return freeze_ ? "frozen  " : "learning"; }
  double tokens_per_s() const { return tokens_per_s_; }
  void Release() { released_ = true; }

  absl::Status Read(const RecallDocument& document, Console& console) {
    ProgressBar bar(absl::StrCat(name(), " reads"), console);
    size_t next = 0;
    const auto fill = [&](v1::AppendRequest& request) -> absl::StatusOr<bool> {
      std::string& text = *request.mutable_text();
      while (next < document.sentences.size() && text.size() < kPieceBytes) {
        text += document.sentences[next++];
      }
      return !text.empty();
    };
    const auto describe = [&](const v1::AppendProgress& progress) {
      tokens_per_s_ = static_cast<double>(progress.position()) / std::max(bar.elapsed_s(), 1e-6);
      return absl::StrFormat("position %d  %.0f tokens/s  %d chunks %s", progress.position(),
                             tokens_per_s_, progress.chunks_closed(), freeze_ ? "read" : "learnt");
    };
    v1::AppendRequest options;
    options.set_session_id(id_);
    v1::AppendProgress last;
    MNEME_RETURN_IF_ERROR(
        AppendStream(connection_, options, fill, [&](const v1::AppendProgress& progress) {
          last = progress;
          bar.Update(
              static_cast<double>(progress.position()) / static_cast<double>(document.total_tokens),
              describe(progress));
        }));
    bar.Finish(describe(last));
    return absl::OkStatus();
  }

  // Asks without teaching; the answer without white space around it.
  absl::StatusOr<std::string> Ask(const std::string& question) {
    v1::GenerateRequest request;
    request.set_session_id(id_);
    request.set_learn(false);
    request.set_max_tokens(kAnswerTokens);
    request.mutable_sampling()->set_temperature(0);
    v1::Message* message = request.mutable_messages()->add_messages();
    message->set_role("user");
    message->set_content(question);
    std::string answer;
    MNEME_RETURN_IF_ERROR(GenerateStream(connection_, request, [&](const v1::GenerateEvent& event) {
      answer += event.token().text();
    }));
    return std::string(absl::StripAsciiWhitespace(answer));
  }

  absl::StatusOr<uint64_t> Bytes() {
    MNEME_ASSIGN_OR_RETURN(const v1::Session session, GetSession(connection_, id_));
    return session.device_bytes() + session.host_bytes() + session.disk_bytes();
  }

 private:
  Reader(const Connection& connection, std::string id, bool freeze)
      : connection_(connection), id_(std::move(id)), freeze_(freeze) {}

  const Connection& connection_;
  const std::string id_;
  const bool freeze_;
  double tokens_per_s_ = 0;
  bool released_ = false;
};

struct EvalResult {
  std::vector<RecallOutcome> outcomes;
  uint64_t tokens = 0;  // of the last document
  double learning_tokens_per_s = 0;
  double frozen_tokens_per_s = 0;
  uint64_t learning_bytes = 0;
  uint64_t frozen_bytes = 0;
  std::string learning_session;  // of the last document
};

class Evaluation {
 public:
  Evaluation(const EvalOptions& options, Console& console, const Connection& connection)
      : options_(options), console_(console), connection_(connection) {}

  absl::StatusOr<EvalResult> Run() {
    MNEME_ASSIGN_OR_RETURN(const RecallTask task, LoadTask());
    for (uint32_t i = 0; i < options_.documents; ++i) {
      RecallOptions recall = options_.recall;
      recall.seed += i;
      MNEME_ASSIGN_OR_RETURN(const RecallDocument document,
                             MakeRecallDocument(task, recall, [&](const std::string& text) {
                               return CountTokens(connection_, text);
                             }));
      MNEME_RETURN_IF_ERROR(RunDocument(document, i + 1));
    }
    return std::move(result_);
  }

 private:
  absl::StatusOr<RecallTask> LoadTask() {
    std::ifstream file(options_.task_file, std::ios::binary);
    if (!file) return absl::NotFoundError("cannot open " + options_.task_file);
    return ParseRecallTask(std::string(std::istreambuf_iterator<char>(file), {}));
  }

  absl::Status RunDocument(const RecallDocument& document, uint32_t number) {
    console_.err << absl::StrFormat("document %d of %d: %d tokens, %d facts\n", number,
                                    options_.documents, document.total_tokens,
                                    document.facts.size());
    MNEME_ASSIGN_OR_RETURN(const std::unique_ptr<Reader> learning,
                           Reader::Open(connection_, /*freeze=*/false));
    MNEME_ASSIGN_OR_RETURN(const std::unique_ptr<Reader> frozen,
                           Reader::Open(connection_, /*freeze=*/true));
    MNEME_RETURN_IF_ERROR(learning->Read(document, console_));
    MNEME_RETURN_IF_ERROR(frozen->Read(document, console_));
    MNEME_RETURN_IF_ERROR(AskAll(document, *learning, *frozen));
    MNEME_ASSIGN_OR_RETURN(result_.learning_bytes, learning->Bytes());
    MNEME_ASSIGN_OR_RETURN(result_.frozen_bytes, frozen->Bytes());
    result_.tokens = document.total_tokens;
    result_.learning_tokens_per_s = learning->tokens_per_s();
    result_.frozen_tokens_per_s = frozen->tokens_per_s();
    if (options_.keep) learning->Release();
    result_.learning_session = learning->id();
    return absl::OkStatus();
  }

  absl::Status AskAll(const RecallDocument& document, Reader& learning, Reader& frozen) {
    ProgressBar bar("questions", console_);
    size_t learning_knew = 0, frozen_knew = 0, asked = 0;
    std::string detail;
    for (const RecallFact& fact : document.facts) {
      MNEME_ASSIGN_OR_RETURN(const std::string learnt, learning.Ask(fact.question));
      MNEME_ASSIGN_OR_RETURN(const std::string unlearnt, frozen.Ask(fact.question));
      const RecallOutcome outcome{.distance_tokens = document.total_tokens - fact.end_tokens,
                                  .learning_knew = learnt == fact.code,
                                  .frozen_knew = unlearnt == fact.code};
      result_.outcomes.push_back(outcome);
      learning_knew += outcome.learning_knew ? 1 : 0;
      frozen_knew += outcome.frozen_knew ? 1 : 0;
      ++asked;
      detail = absl::StrFormat("of %d asked, learning knew %d, frozen %d", asked, learning_knew,
                               frozen_knew);
      bar.Update(static_cast<double>(asked) / static_cast<double>(document.facts.size()), detail);
    }
    bar.Finish(detail);
    return absl::OkStatus();
  }

  const EvalOptions& options_;
  Console& console_;
  const Connection& connection_;
  EvalResult result_;
};

double Mebibytes(uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

void PrintTable(const EvalResult& result, bool kept, std::ostream& out) {
  const std::vector<RecallBucket> buckets = MakeRecallBuckets(result.outcomes);
  const RecallBucket sum = SumRecall(buckets);
  out << "\nRecall of codes, by the tokens read since:\n" << RecallTable(buckets) << "\n";
  out << absl::StrFormat("  %-28s %9.0f %9.0f\n", "tokens a second", result.learning_tokens_per_s,
                         result.frozen_tokens_per_s);
  out << absl::StrFormat("  %-28s %9.2f %9.2f\n", "session MiB", Mebibytes(result.learning_bytes),
                         Mebibytes(result.frozen_bytes));
  if (kept) out << "  session kept: " << result.learning_session << "\n";
  out << absl::StrFormat("\nrecall learning=%.2f frozen=%.2f\n",
                         RecallShare(sum.learning_knew, sum.questions),
                         RecallShare(sum.frozen_knew, sum.questions));
}

nlohmann::json ToJson(const RecallBucket& bucket) {
  return {{"begin_tokens", bucket.begin_tokens},
          {"end_tokens", bucket.end_tokens},
          {"questions", bucket.questions},
          {"learning", RecallShare(bucket.learning_knew, bucket.questions)},
          {"frozen", RecallShare(bucket.frozen_knew, bucket.questions)}};
}

void PrintJson(const EvalResult& result, std::ostream& out) {
  const std::vector<RecallBucket> buckets = MakeRecallBuckets(result.outcomes);
  nlohmann::json by_distance = nlohmann::json::array();
  for (const RecallBucket& bucket : buckets) by_distance.push_back(ToJson(bucket));
  const nlohmann::json json = {{"recall", ToJson(SumRecall(buckets))},
                               {"recall_by_distance", by_distance},
                               {"document_tokens", result.tokens},
                               {"learning_tokens_per_second", result.learning_tokens_per_s},
                               {"frozen_tokens_per_second", result.frozen_tokens_per_s},
                               {"learning_session_bytes", result.learning_bytes},
                               {"frozen_session_bytes", result.frozen_bytes}};
  out << json.dump(2) << std::endl;
}

absl::Status RunEval(const EvalOptions& options, Console& console, const Connection& connection) {
  MNEME_ASSIGN_OR_RETURN(const EvalResult result, Evaluation(options, console, connection).Run());
  options.json ? PrintJson(result, console.out) : PrintTable(result, options.keep, console.out);
  return absl::OkStatus();
}

}  // namespace

void AddEvalCommand(CLI::App& app, CommandLine& line) {
  CLI::App* command = app.add_subcommand("eval", "Measure what learning lets a session recall");
  auto options = std::make_shared<EvalOptions>();
  command->add_option("--task", options->task_file, "The model's recall_task.json")
      ->capture_default_str();
  command->add_option("--documents", options->documents, "How many documents")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--tokens", options->recall.tokens, "The least tokens of a document")
      ->capture_default_str();
  command->add_option("--facts", options->recall.facts, "Codes in a document")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--seed", options->recall.seed, "Of the first document; the next add one")
      ->capture_default_str();
  command->add_flag("--keep", options->keep, "Do not delete the sessions that learnt");
  command->add_flag("--json", options->json, "Print the result as JSON");
  command->footer(kHelp);
  command->callback([options, &line] {
    line.run = [options, &line](const Connection& connection) {
      return RunEval(*options, line.console, connection);
    };
  });
}

}  // namespace mneme
