#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/sessions.h"

namespace mneme {
namespace {

using nlohmann::ordered_json;

constexpr double kMs = 1e3;

// What each session of `start` takes beyond what a start without sessions does.
double PerSession(const ParkedStart& start, const ParkedStart& empty, int64_t ParkedStart::*bytes) {
  return static_cast<double>(start.*bytes - empty.*bytes) / static_cast<double>(start.sessions);
}

ordered_json Json(const DurabilityFigures& figures) {
  ordered_json json = {{"streams", figures.streams}, {"documents", figures.documents}};
  for (size_t mode = 0; mode < kDurabilities.size(); ++mode) {
    const DurabilityFigures::Ratio& ratio = figures.to_none[mode];
    json[NameOf(kDurabilities[mode])] = {{"tokens_per_second", figures.tokens_per_second[mode]},
                                         {"cpu_us_per_token", figures.cpu_us_per_token[mode]},
                                         {"to_none", ratio.median},
                                         {"to_none_least", ratio.least},
                                         {"to_none_largest", ratio.largest}};
  }
  return json;
}

}  // namespace

std::string DurabilityText(const DurabilityReport& report) {
  std::string text = absl::StrFormat(
      "durability: medians of %d rounds, in which the modes take turns\n"
      "  the disk does %.0f syncs/s\n"
      "  %-26s %-6s %10s %8s %15s %14s\n",
      report.rounds, report.syncs_per_second, "load", "mode", "tokens/s", "to none",
      "least-largest", "cpu us/token");
  for (const DurabilityFigures& f : report.figures) {
    const std::string load = absl::StrCat(f.streams, " streams, ", f.documents, " documents");
    for (size_t mode = 0; mode < kDurabilities.size(); ++mode) {
      const DurabilityFigures::Ratio& ratio = f.to_none[mode];
      absl::StrAppendFormat(&text, "  %-26s %-6s %10.0f %8.3f %10.2f-%.2f %14.0f\n", load,
                            NameOf(kDurabilities[mode]), f.tokens_per_second[mode], ratio.median,
                            ratio.least, ratio.largest, f.cpu_us_per_token[mode]);
    }
  }
  return text;
}

std::string RestoreText(const std::vector<RestoreFigures>& figures) {
  std::string text = absl::StrFormat(
      "until the first token of a session used first after a start\n"
      "  %8s %16s %12s %8s\n",
      "tokens", "checkpoint ms", "replay ms", "ratio");
  for (const RestoreFigures& f : figures) {
    absl::StrAppendFormat(&text, "  %8d %16.1f %12.1f %8.1f\n", f.tokens, f.checkpoint_ms,
                          f.replay_ms, f.replay_ms / f.checkpoint_ms);
  }
  return text;
}

std::string ParkedText(const ParkedReport& report) {
  std::string text = absl::StrFormat(
      "parked sessions of %d tokens, a checkpoint without KV each (made in %.0f s)\n"
      "  %8s %10s %10s %11s %13s %13s %13s\n",
      report.tokens, report.fill_s, "sessions", "listing s", "engine s", "server s", "resident MB",
      "B/session", "allocated B");
  const ParkedStart& empty = report.starts.front();
  for (const ParkedStart& s : report.starts) {
    absl::StrAppendFormat(&text, "  %8d %10.2f %10.2f %11.2f %13.1f", s.sessions,
                          s.listing_ms / kMs, s.engine_ms / kMs, s.server_ms / kMs,
                          static_cast<double>(s.server_resident_bytes) / 1e6);
    if (s.sessions > 0) {
      absl::StrAppendFormat(&text, " %13.0f %13.0f",
                            PerSession(s, empty, &ParkedStart::server_resident_bytes),
                            PerSession(s, empty, &ParkedStart::allocated_bytes));
    }
    text += '\n';
  }
  absl::StrAppendFormat(
      &text,
      "  server, resident: of the program when it listens. allocated: by store and engine.\n"
      "  %d used at random: each goes on as it must, in %d different ways; %.1f ms p50, %.1f ms "
      "p99\n",
      report.accesses, report.different, report.access_p50_ms, report.access_p99_ms);
  return text;
}

std::string DurabilityJson(const DurabilityReport& report) {
  ordered_json loads;
  for (const DurabilityFigures& figures : report.figures) loads.push_back(Json(figures));
  return ordered_json{
      {"rounds", report.rounds}, {"syncs_per_second", report.syncs_per_second}, {"loads", loads}}
      .dump(2);
}

std::string RestoreJson(const std::vector<RestoreFigures>& figures) {
  ordered_json json = ordered_json::array();
  for (const RestoreFigures& f : figures) {
    json.push_back({{"tokens", f.tokens},
                    {"checkpoint_ms", f.checkpoint_ms},
                    {"replay_ms", f.replay_ms},
                    {"ratio", f.replay_ms / f.checkpoint_ms}});
  }
  return json.dump(2);
}

std::string ParkedJson(const ParkedReport& report) {
  ordered_json starts;
  for (const ParkedStart& s : report.starts) {
    starts.push_back({{"sessions", s.sessions},
                      {"listing_ms", s.listing_ms},
                      {"engine_ms", s.engine_ms},
                      {"allocated_bytes", s.allocated_bytes},
                      {"server_ms", s.server_ms},
                      {"server_resident_bytes", s.server_resident_bytes}});
  }
  return ordered_json{{"tokens", report.tokens},
                      {"fill_s", report.fill_s},
                      {"starts", starts},
                      {"accesses", report.accesses},
                      {"different", report.different},
                      {"access_p50_ms", report.access_p50_ms},
                      {"access_p99_ms", report.access_p99_ms}}
      .dump(2);
}

}  // namespace mneme
