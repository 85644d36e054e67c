// How long a session takes to come back, from a checkpoint and from its log.

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "bench/random_tokens.h"
#include "bench/session_engine.h"
#include "bench/sessions.h"
#include "bench/statistics.h"
#include "bench/stopwatch.h"

namespace mneme {
namespace {

constexpr char kId[] = "session";
constexpr int64_t kFollowing = 8;  // tokens that are compared
// Of what has written the checkpoint, and of what cannot use it.
constexpr uint64_t kFingerprint = 1, kOtherFingerprint = 2;

class Restores {
 public:
  Restores(const SessionsOptions& options, int64_t tokens)
      : options_(options), tokens_(tokens), data_dir_(options.work_dir / "restore") {}
  ~Restores() { std::filesystem::remove_all(data_dir_); }
  Restores(const Restores&) = delete;
  Restores& operator=(const Restores&) = delete;

  // The session reads its tokens and gets its checkpoint.
  absl::Status Write() {
    MNEME_ASSIGN_OR_RETURN(const auto engine, Open(kFingerprint));
    MNEME_RETURN_IF_ERROR(engine->CheckLength(tokens_ + kFollowing));
    MNEME_RETURN_IF_ERROR(engine->CreateSessions({kId}));
    MNEME_RETURN_IF_ERROR(
        engine->Append(kId, RandomTokens(tokens_, engine->vocab_size(), 1))->Await());
    MNEME_RETURN_IF_ERROR(engine->Checkpoint({kId}));
    MNEME_ASSIGN_OR_RETURN(following_, Follow(*engine, kFollowing));
    return absl::OkStatus();
  }

  // Until the session's first token, after a start.
  absl::StatusOr<double> FirstTokenMs(bool from_checkpoint) const {
    MNEME_ASSIGN_OR_RETURN(const auto engine,
                           Open(from_checkpoint ? kFingerprint : kOtherFingerprint));
    const Stopwatch stopwatch;
    MNEME_RETURN_IF_ERROR(Follow(*engine, 1).status());
    const double ms = stopwatch.Elapsed().wall_ms;
    if (engine->checkpoint_tokens() != (from_checkpoint ? tokens_ : 0)) {
      return absl::DataLossError(absl::StrCat(engine->checkpoint_tokens(), " of ", tokens_,
                                              " tokens were restored from the checkpoint"));
    }
    MNEME_ASSIGN_OR_RETURN(const std::vector<int32_t> following, Follow(*engine, kFollowing));
    if (following == following_) return ms;
    return absl::DataLossError(
        absl::StrCat("a session of ", tokens_, " tokens that was restored ",
                     from_checkpoint ? "from its checkpoint" : "from its log",
                     " goes on with other tokens than before"));
  }

 private:
  absl::StatusOr<std::unique_ptr<SessionEngine>> Open(uint64_t fingerprint) const {
    return SessionEngine::Open({.model_dir = options_.model_dir,
                                .threads = options_.threads,
                                .data_dir = data_dir_,
                                .fingerprint = fingerprint});
  }
  static absl::StatusOr<std::vector<int32_t>> Follow(SessionEngine& engine, int64_t tokens) {
    const auto client = engine.Generate(kId, {}, tokens, /*learn=*/false);
    MNEME_RETURN_IF_ERROR(client->Await());
    return client->tokens();
  }

  const SessionsOptions& options_;
  const int64_t tokens_;
  const std::filesystem::path data_dir_;
  std::vector<int32_t> following_;
};

}  // namespace

absl::StatusOr<std::vector<RestoreFigures>> MeasureRestore(const SessionsOptions& options,
                                                           const SessionsProgress& progress) {
  std::vector<RestoreFigures> figures;
  for (const int64_t tokens : options.restore_tokens) {
    progress(absl::StrCat("restore of ", tokens), 0);
    Restores restores(options, tokens);
    MNEME_RETURN_IF_ERROR(restores.Write());
    std::vector<double> checkpoint_ms, replay_ms;
    for (int i = 0; i < options.restore_repeats; ++i) {
      progress(absl::StrCat("restore of ", tokens), (i + 1.0) / (options.restore_repeats + 1));
      MNEME_ASSIGN_OR_RETURN(checkpoint_ms.emplace_back(), restores.FirstTokenMs(true));
      MNEME_ASSIGN_OR_RETURN(replay_ms.emplace_back(), restores.FirstTokenMs(false));
    }
    figures.push_back({tokens, Median(checkpoint_ms), Median(replay_ms)});
  }
  return figures;
}

}  // namespace mneme
