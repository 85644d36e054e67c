#include "bench/session_engine.h"

#include <algorithm>
#include <future>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "bench/bench_backend.h"
#include "bench/bench_model.h"
#include "bench/stopwatch.h"
#include "engine/tokenizer/tokenizer.h"

namespace mneme {
namespace {

constexpr char kTenant[] = "default";

// Calls `ask` for each session, all at once, and waits for the answers; the first that is not OK.
template <typename T, typename Ask>
absl::Status AskAll(const std::vector<std::string>& ids, const Ask& ask) {
  std::vector<std::promise<absl::Status>> answers(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    ask(SessionKey{kTenant, ids[i]}, [&answer = answers[i]](const absl::StatusOr<T>& result) {
      answer.set_value(result.status());
    });
  }
  absl::Status first;
  for (std::promise<absl::Status>& answer : answers) first.Update(answer.get_future().get());
  return first;
}

EngineOptions ToEngineOptions(const SessionEngineOptions& options) {
  EngineOptions engine;
  engine.checkpoints = {.every_tokens = 0, .every = absl::InfiniteDuration()};
  engine.checkpoint_kv = options.checkpoint_kv;
  return engine;
}

// As a server loads it, so that sessions mean the same to both.
absl::StatusOr<ServedModel> LoadServed(const SessionEngineOptions& options, Backend& backend) {
  BenchOptions model_options;
  model_options.model_dir = options.model_dir;
  model_options.prefill_tokens = model_options.decode_tokens = 1;
  MNEME_ASSIGN_OR_RETURN(BenchModel model, LoadBenchModel(model_options, backend));
  ServedModel served = {.config = std::move(model.config),
                        .weights = std::move(model.weights),
                        .fingerprint = options.fingerprint};
  if (std::filesystem::exists(options.model_dir / "tokenizer.json")) {
    MNEME_ASSIGN_OR_RETURN(served.tokenizer, Tokenizer::Load(options.model_dir));
  }
  return served;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SessionEngine>> SessionEngine::Open(
    const SessionEngineOptions& options) {
  std::unique_ptr<SessionEngine> opened(new SessionEngine);
  BenchOptions backend_options;
  backend_options.threads = options.threads;
  MNEME_ASSIGN_OR_RETURN(auto backend, MakeBenchBackend(backend_options));
  MNEME_ASSIGN_OR_RETURN(ServedModel served, LoadServed(options, *backend));
  std::error_code error;
  std::filesystem::create_directories(options.data_dir, error);
  if (error) {
    return absl::UnavailableError("cannot make " + options.data_dir.string() + ": " +
                                  error.message());
  }
  const Stopwatch listing;
  MNEME_ASSIGN_OR_RETURN(SessionStore::Opened stored,
                         SessionStore::Open({.data_dir = options.data_dir,
                                             .log = {.durability = options.durability}}));
  opened->listing_ms_ = listing.Elapsed().wall_ms;
  opened->listed_ = static_cast<int64_t>(stored.listing.sessions.size());
  const Stopwatch creating;
  MNEME_ASSIGN_OR_RETURN(
      opened->engine_,
      Engine::Create(ToEngineOptions(options), std::move(backend), std::move(served),
                     opened->clock_, opened->restores_, std::move(stored)));
  opened->engine_ms_ = creating.Elapsed().wall_ms;
  return opened;
}

absl::Status SessionEngine::CheckLength(int64_t tokens) const {
  const int64_t limit = engine_->config().MaxSessionTokens();
  if (tokens <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "a session of ", tokens, " tokens is needed, but the model's context ends at ", limit));
}

absl::Status SessionEngine::CreateSessions(const std::vector<std::string>& ids) {
  // Random tokens are no text: without a limit what they teach would diverge in the end.
  const SessionOptions options = {.controls = {.clip_norm = 0.1F}};
  return AskAll<SessionInfo>(ids, [&](const SessionKey& key, Engine::Done<SessionInfo> done) {
    engine_->CreateSession(key, options, std::move(done));
  });
}

absl::Status SessionEngine::Checkpoint(const std::vector<std::string>& ids) {
  return AskAll<CheckpointSummary>(
      ids, [&](const SessionKey& key, Engine::Done<CheckpointSummary> done) {
        engine_->CheckpointSession(key, /*name=*/"", /*gave_up=*/nullptr, std::move(done));
      });
}

std::shared_ptr<EngineClient> SessionEngine::Generate(const std::string& id,
                                                      std::vector<int32_t> input, int64_t tokens,
                                                      bool learn) {
  GenerateRequest request;
  request.header.session = {kTenant, id};
  request.input = {.ids = std::move(input)};
  request.sampling.temperature = 0;
  request.max_tokens = tokens;
  request.ignore_eos = true;
  request.learn = learn;
  return EngineClient::Generate(*engine_, std::move(request));
}

std::shared_ptr<EngineClient> SessionEngine::Append(const std::string& id,
                                                    const std::vector<int32_t>& tokens) {
  constexpr size_t kPieceTokens = 512;
  AppendRequest request;
  request.header.session = {kTenant, id};
  std::vector<InputPiece> pieces;
  for (size_t at = 0; at < tokens.size(); at += kPieceTokens) {
    const auto begin = tokens.begin() + static_cast<std::ptrdiff_t>(at);
    const size_t count = std::min(kPieceTokens, tokens.size() - at);
    pieces.push_back({.ids = {begin, begin + static_cast<std::ptrdiff_t>(count)}});
  }
  return EngineClient::Ingest(*engine_, std::move(request), std::move(pieces));
}

}  // namespace mneme
