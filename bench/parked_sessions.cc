// Many sessions that lie on the disk: a start with them, what they hold, and using some of them.

#include <malloc.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <set>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "bench/random_tokens.h"
#include "bench/server_start.h"
#include "bench/session_engine.h"
#include "bench/sessions.h"
#include "bench/stopwatch.h"

namespace mneme {
namespace {

constexpr int64_t kFollowing = 8;  // tokens that are generated, and as many that are compared

std::string NameOf(int64_t i) { return absl::StrFormat("p%07d", i); }

// Allocated and not freed, small blocks and large ones.
int64_t AllocatedBytes() {
  const struct mallinfo2 info = mallinfo2();
  return static_cast<int64_t>(info.uordblks + info.hblkhd);
}

class ParkedSessions {
 public:
  ParkedSessions(const SessionsOptions& options, const SessionsProgress& progress)
      : options_(options), progress_(progress), data_dir_(options.work_dir / "parked") {}

  // Makes more sessions, until there are `count`.
  absl::Status FillTo(int64_t count);
  absl::StatusOr<ParkedStart> Start() const;
  // Uses sessions at random, each for the first time after a start.
  absl::Status Access(ParkedReport* report) const;

 private:
  absl::StatusOr<std::unique_ptr<SessionEngine>> Open() const {
    return SessionEngine::Open({.model_dir = options_.model_dir,
                                .threads = options_.threads,
                                .data_dir = data_dir_,
                                .durability = Durability::kAsync,
                                .checkpoint_kv = false});
  }
  // Sessions from `made()` on, in one group.
  absl::Status Make(SessionEngine& engine, int64_t count);
  int64_t made() const { return static_cast<int64_t>(following_.size()); }

  const SessionsOptions& options_;
  const SessionsProgress& progress_;
  const std::filesystem::path data_dir_;
  std::vector<std::vector<int32_t>> following_;  // what each goes on with
};

absl::Status ParkedSessions::FillTo(int64_t count) {
  // Each engine holds what it has computed, so each gets a part of the sessions only.
  constexpr int64_t kOfEngine = 512, kGroup = 64;
  while (made() < count) {
    MNEME_ASSIGN_OR_RETURN(const auto engine, Open());
    MNEME_RETURN_IF_ERROR(engine->CheckLength(options_.parked_tokens + kFollowing));
    const int64_t end = std::min(count, made() + kOfEngine);
    while (made() < end) {
      progress_("making parked sessions",
                static_cast<double>(made()) / static_cast<double>(options_.parked));
      MNEME_RETURN_IF_ERROR(Make(*engine, std::min(kGroup, end - made())));
    }
  }
  return absl::OkStatus();
}

absl::Status ParkedSessions::Make(SessionEngine& engine, int64_t count) {
  std::vector<std::string> names;
  for (int64_t i = made(); i < made() + count; ++i) names.push_back(NameOf(i));
  MNEME_RETURN_IF_ERROR(engine.CreateSessions(names));
  std::vector<std::shared_ptr<EngineClient>> generating, following;
  for (size_t i = 0; i < names.size(); ++i) {
    const uint64_t seed = static_cast<uint64_t>(made()) + i;
    generating.push_back(engine.Generate(
        names[i], RandomTokens(options_.parked_tokens - kFollowing, engine.vocab_size(), seed),
        kFollowing));
    following.push_back(engine.Generate(names[i], {}, kFollowing, /*learn=*/false));
  }
  for (size_t i = 0; i < names.size(); ++i) {
    MNEME_RETURN_IF_ERROR(generating[i]->Await());
    MNEME_RETURN_IF_ERROR(following[i]->Await());
    following_.push_back(following[i]->tokens());
  }
  return engine.Checkpoint(names);
}

absl::StatusOr<ParkedStart> ParkedSessions::Start() const {
  progress_(absl::StrCat("starting with ", made(), " sessions"), 0);
  ParkedStart start = {.sessions = made()};
  {
    const int64_t before_bytes = AllocatedBytes();
    MNEME_ASSIGN_OR_RETURN(const auto engine, Open());
    if (engine->listed() != made()) {
      return absl::DataLossError(
          absl::StrCat(engine->listed(), " of ", made(), " sessions are listed"));
    }
    start.listing_ms = engine->listing_ms();
    start.engine_ms = engine->engine_ms();
    start.allocated_bytes = AllocatedBytes() - before_bytes;
  }
  MNEME_ASSIGN_OR_RETURN(
      const ServerStart server,
      MeasureServerStart(options_.server,
                         {"--model", options_.model_dir, "--data_dir", data_dir_, "--port", "0",
                          "--metrics_port", "0", "--log_level", "error"}));
  start.server_ms = server.ms;
  start.server_resident_bytes = server.resident_bytes;
  return start;
}

absl::Status ParkedSessions::Access(ParkedReport* report) const {
  MNEME_ASSIGN_OR_RETURN(const auto engine, Open());
  std::vector<int64_t> order(following_.size());
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937_64(1));
  order.resize(std::min(order.size(), static_cast<size_t>(options_.accesses)));
  std::vector<double> times_ms;
  std::set<std::vector<int32_t>> different;
  for (const int64_t i : order) {
    progress_("using parked sessions",
              static_cast<double>(times_ms.size()) / static_cast<double>(order.size()));
    const Stopwatch stopwatch;
    const auto client = engine->Generate(NameOf(i), {}, kFollowing, /*learn=*/false);
    MNEME_RETURN_IF_ERROR(client->Await());
    times_ms.push_back(stopwatch.Elapsed().wall_ms);
    if (client->tokens() != following_[static_cast<size_t>(i)]) {
      return absl::DataLossError(
          absl::StrCat("parked session ", NameOf(i), " goes on with other tokens than before"));
    }
    different.insert(client->tokens());
  }
  std::sort(times_ms.begin(), times_ms.end());
  report->accesses = static_cast<int64_t>(times_ms.size());
  report->different = static_cast<int64_t>(different.size());
  report->access_p50_ms = times_ms[times_ms.size() / 2];
  report->access_p99_ms = times_ms[times_ms.size() * 99 / 100];
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ParkedReport> MeasureParked(const SessionsOptions& options,
                                           const SessionsProgress& progress) {
  ParkedSessions sessions(options, progress);
  ParkedReport report = {.tokens = options.parked_tokens};
  for (const int64_t count : {int64_t{0}, options.parked / 2, options.parked}) {
    const Stopwatch stopwatch;
    MNEME_RETURN_IF_ERROR(sessions.FillTo(count));
    report.fill_s += stopwatch.Elapsed().wall_ms / 1e3;
    MNEME_ASSIGN_OR_RETURN(report.starts.emplace_back(), sessions.Start());
  }
  MNEME_RETURN_IF_ERROR(sessions.Access(&report));
  return report;
}

}  // namespace mneme
