// What it costs to log each step, in each mode.

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "bench/random_tokens.h"
#include "bench/session_engine.h"
#include "bench/sessions.h"
#include "bench/statistics.h"
#include "bench/stopwatch.h"

namespace mneme {
namespace {

constexpr size_t kNone = 2;
static_assert(kDurabilities[kNone] == Durability::kNone);

// Small writes to one file, each synced before the next.
absl::StatusOr<double> SyncsPerSecond(const std::filesystem::path& directory) {
  constexpr int kWrites = 100;
  const std::string path = directory / "syncs";
  const int file = open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0600);
  const auto failed = [&path] {
    return absl::UnavailableError(absl::StrCat("cannot write ", path, ": ", strerror(errno)));
  };
  if (file < 0) return failed();
  const absl::Cleanup remove = [&] {
    close(file);
    unlink(path.c_str());
  };
  const std::string block(4096, 'm');
  const Stopwatch stopwatch;
  for (int i = 0; i < kWrites; ++i) {
    const bool written = write(file, block.data(), block.size()) == ssize_t{4096};
    if (!written || fdatasync(file) != 0) return failed();
  }
  return 1e3 * kWrites / stopwatch.Elapsed().wall_ms;
}

struct Load {
  int64_t streams = 0, documents = 0;
};

std::vector<std::string> Names(const char* kind, int64_t count) {
  std::vector<std::string> names;
  for (int64_t i = 0; i < count; ++i) names.push_back(absl::StrCat(kind, i));
  return names;
}

struct Rate {
  double tokens_per_second = 0, cpu_us_per_token = 0;
};

// One run, on sessions of its own.
absl::StatusOr<Rate> Run(const SessionsOptions& options, const Load& load, Durability durability) {
  const std::filesystem::path data_dir = options.work_dir / "durability";
  const absl::Cleanup remove = [&data_dir] { std::filesystem::remove_all(data_dir); };
  MNEME_ASSIGN_OR_RETURN(const auto engine, SessionEngine::Open({.model_dir = options.model_dir,
                                                                 .threads = options.threads,
                                                                 .data_dir = data_dir,
                                                                 .durability = durability}));
  constexpr int64_t kContext = 128, kFirst = 8;
  MNEME_RETURN_IF_ERROR(engine->CheckLength(
      std::max(kContext + kFirst + options.stream_tokens, options.document_tokens)));
  const std::vector<std::string> streams = Names("s", load.streams);
  const std::vector<std::string> documents = Names("d", load.documents);
  MNEME_RETURN_IF_ERROR(engine->CreateSessions(streams));
  MNEME_RETURN_IF_ERROR(engine->CreateSessions(documents));
  std::vector<std::shared_ptr<EngineClient>> clients;
  const auto await = [&clients]() -> absl::Status {
    for (const auto& client : clients) MNEME_RETURN_IF_ERROR(client->Await());
    clients.clear();
    return absl::OkStatus();
  };
  for (size_t i = 0; i < streams.size(); ++i) {
    clients.push_back(
        engine->Generate(streams[i], RandomTokens(kContext, engine->vocab_size(), i), kFirst));
  }
  MNEME_RETURN_IF_ERROR(await());
  const Stopwatch stopwatch;
  for (const std::string& id : streams) {
    clients.push_back(engine->Generate(id, {}, options.stream_tokens));
  }
  for (size_t i = 0; i < documents.size(); ++i) {
    clients.push_back(engine->Append(
        documents[i], RandomTokens(options.document_tokens, engine->vocab_size(), 1000 + i)));
  }
  MNEME_RETURN_IF_ERROR(await());
  const Duration duration = stopwatch.Elapsed();
  const auto tokens = static_cast<double>(load.streams * options.stream_tokens +
                                          load.documents * options.document_tokens);
  return Rate{1e3 * tokens / duration.wall_ms, 1e3 * duration.cpu_ms / tokens};
}

// One mode's of each round.
using Rates = std::array<std::vector<Rate>, kDurabilities.size()>;

double MedianOf(const std::vector<Rate>& rates, double Rate::*figure) {
  std::vector<double> values;
  for (const Rate& rate : rates) values.push_back(rate.*figure);
  return Median(std::move(values));
}

DurabilityFigures Summarize(const Load& load, const Rates& rates) {
  DurabilityFigures figures = {.streams = load.streams, .documents = load.documents};
  for (size_t mode = 0; mode < rates.size(); ++mode) {
    figures.tokens_per_second[mode] = MedianOf(rates[mode], &Rate::tokens_per_second);
    figures.cpu_us_per_token[mode] = MedianOf(rates[mode], &Rate::cpu_us_per_token);
    std::vector<double> ratios;
    for (size_t round = 0; round < rates[mode].size(); ++round) {
      ratios.push_back(rates[mode][round].tokens_per_second /
                       rates[kNone][round].tokens_per_second);
    }
    const auto [least, largest] = std::minmax_element(ratios.begin(), ratios.end());
    figures.to_none[mode] = {.median = Median(ratios), .least = *least, .largest = *largest};
  }
  return figures;
}

}  // namespace

const char* NameOf(Durability durability) {
  switch (durability) {
    case Durability::kSync:
      return "sync";
    case Durability::kAsync:
      return "async";
    case Durability::kNone:
      return "none";
  }
  MNEME_CHECK(false);
}

absl::StatusOr<DurabilityReport> MeasureDurability(const SessionsOptions& options,
                                                   const SessionsProgress& progress) {
  const std::array<Load, 2> loads = {Load{.streams = 1}, Load{options.streams, options.documents}};
  std::array<Rates, loads.size()> rates;
  std::vector<double> syncs;
  for (int round = 0; round < options.rounds; ++round) {
    progress("durability", static_cast<double>(round) / options.rounds);
    MNEME_ASSIGN_OR_RETURN(syncs.emplace_back(), SyncsPerSecond(options.work_dir));
    for (size_t l = 0; l < loads.size(); ++l) {
      for (size_t turn = 0; turn < kDurabilities.size(); ++turn) {
        const size_t mode = (turn + static_cast<size_t>(round)) % kDurabilities.size();
        MNEME_ASSIGN_OR_RETURN(rates[l][mode].emplace_back(),
                               Run(options, loads[l], kDurabilities[mode]));
      }
    }
  }
  DurabilityReport report = {.rounds = options.rounds, .syncs_per_second = Median(syncs)};
  for (size_t l = 0; l < loads.size(); ++l) {
    report.figures.push_back(Summarize(loads[l], rates[l]));
  }
  return report;
}

}  // namespace mneme
