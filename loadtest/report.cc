#include "loadtest/report.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace mneme {
namespace {

using Json = nlohmann::ordered_json;

double Milliseconds(int64_t us) { return static_cast<double>(us) * 1e-3; }

double PerSecond(int64_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

// The latencies of a report, with their names for people and for programs.
struct NamedHistogram {
  const char* title;
  const char* key;
  const Histogram& histogram;
};

std::vector<NamedHistogram> Latencies(const LoadReport& report) {
  return {{"time to first token", "time_to_first_token", report.first_token},
          {"time between tokens", "time_between_tokens", report.between_tokens},
          {"generation, end to end", "generate", report.generate},
          {"document, first progress", "first_progress", report.first_progress},
          {"document, end to end", "append", report.append},
          {"lateness of this client", "start_lag", report.start_lag}};
}

void AppendCalls(const LoadReport& report, std::string& text) {
  absl::StrAppendFormat(&text, "\n%-16s %8s   ended with\n", "call", "started");
  for (const auto& [name, counts] : report.calls) {
    absl::StrAppendFormat(&text, "%-16s %8d  ", name, counts.started);
    for (const auto& [status, count] : counts.ended) {
      absl::StrAppendFormat(&text, " %s %d ", status, count);
    }
    text += '\n';
  }
}

void AppendLatencies(const LoadReport& report, std::string& text) {
  absl::StrAppendFormat(&text, "\n%-26s %8s %10s %10s %10s %10s %10s\n", "milliseconds", "count",
                        "mean", "p50", "p90", "p99", "max");
  for (const auto& [title, key, histogram] : Latencies(report)) {
    if (histogram.count() == 0) continue;
    absl::StrAppendFormat(
        &text, "%-26s %8d %10.2f %10.2f %10.2f %10.2f %10.2f\n", title, histogram.count(),
        histogram.mean_us() * 1e-3, Milliseconds(histogram.PercentileUs(0.5)),
        Milliseconds(histogram.PercentileUs(0.9)), Milliseconds(histogram.PercentileUs(0.99)),
        Milliseconds(histogram.max_us()));
  }
}

void AppendCheck(const LoadReport& report, std::string& text) {
  const CheckReport& check = report.check;
  if (report.options.check_fraction == 0) return;
  absl::StrAppendFormat(&text,
                        "\nalone: %d streams of %d sessions compared, %d tokens equal, %d streams "
                        "differ, %d parted at a tie, %d not compared\n",
                        check.streams, check.sessions, check.tokens, check.differences.size(),
                        check.ties, check.not_compared);
  for (const Difference& difference : check.differences) {
    absl::StrAppendFormat(&text, "DIFFERS: session %s at position %d: %s\n", difference.session_id,
                          difference.position, difference.what);
  }
}

Json ToJson(const Histogram& histogram) {
  return {{"count", histogram.count()},
          {"mean_ms", histogram.mean_us() * 1e-3},
          {"p50_ms", Milliseconds(histogram.PercentileUs(0.5))},
          {"p90_ms", Milliseconds(histogram.PercentileUs(0.9))},
          {"p99_ms", Milliseconds(histogram.PercentileUs(0.99))},
          {"max_ms", Milliseconds(histogram.max_us())}};
}

Json ToJson(const LoadOptions& options) {
  return {{"scenario", NameOf(options.scenario)},
          {"rate", options.rate},
          {"document_share", options.document_share},
          {"duration_seconds", options.duration_s},
          {"turns", options.turns},
          {"think_seconds", options.think_s},
          {"input_tokens", options.input_tokens},
          {"output_tokens", options.output_tokens},
          {"document_tokens", options.document_tokens},
          {"piece_tokens", options.piece_tokens},
          {"text", options.text},
          {"cancel_fraction", options.cancel_fraction},
          {"slow_reader_fraction", options.slow_reader_fraction},
          {"pause_seconds", options.pause_s},
          {"check_fraction", options.check_fraction},
          {"tie_tolerance", options.tie_tolerance},
          {"deadline_seconds", options.deadline_s},
          {"retry", options.retries},
          {"max_in_flight", options.max_in_flight},
          {"seed", options.seed}};
}

Json ToJson(const CheckReport& check) {
  Json differences = Json::array();
  for (const Difference& difference : check.differences) {
    differences.push_back({{"session_id", difference.session_id},
                           {"position", difference.position},
                           {"what", difference.what}});
  }
  return {{"sessions", check.sessions},
          {"streams", check.streams},
          {"tokens", check.tokens},
          {"ties", check.ties},
          {"not_compared", check.not_compared},
          {"differences", std::move(differences)}};
}

Json CallsToJson(const LoadReport& report) {
  Json calls = Json::object();
  for (const auto& [name, counts] : report.calls) {
    calls[name] = {{"started", counts.started}, {"ended", Json(counts.ended)}};
  }
  return calls;
}

}  // namespace

int64_t CallCounts::ended_count() const {
  int64_t sum = 0;
  for (const auto& [status, count] : ended) sum += count;
  return sum;
}

const char* NameOf(Scenario scenario) {
  if (scenario == Scenario::kChat) return "chat";
  return scenario == Scenario::kIngest ? "ingest" : "mixed";
}

std::string ReportText(const LoadReport& report) {
  const LoadOptions& options = report.options;
  std::string text = absl::StrFormat(
      "%s at %g/s for %g s, seed %d, against %s (%s, %s, version %s)%s\n", NameOf(options.scenario),
      options.rate, options.duration_s, options.seed, options.server, report.model, report.backend,
      report.server_version, report.interrupted ? ": INTERRUPTED" : "");
  absl::StrAppendFormat(&text,
                        "%d sessions arrived, %d of them dropped by this client; %d retries; "
                        "%.1f s in all\n",
                        report.arrivals, report.dropped, report.retries, report.elapsed_s);
  absl::StrAppendFormat(&text, "tokens: %d in, %.1f/s; %d out, %.1f/s\n", report.tokens_in,
                        PerSecond(report.tokens_in, report.elapsed_s), report.tokens_out,
                        PerSecond(report.tokens_out, report.elapsed_s));
  AppendCalls(report, text);
  AppendLatencies(report, text);
  AppendCheck(report, text);
  for (const auto& [what, count] : report.unexpected) {
    absl::StrAppendFormat(&text, "UNEXPECTED, %d times: %s\n", count, what);
  }
  return text;
}

std::string ReportJson(const LoadReport& report) {
  Json latencies = Json::object();
  for (const auto& [title, key, histogram] : Latencies(report)) latencies[key] = ToJson(histogram);
  const Json json = {{"options", ToJson(report.options)},
                     {"server",
                      {{"address", report.options.server},
                       {"model", report.model},
                       {"backend", report.backend},
                       {"version", report.server_version}}},
                     {"interrupted", report.interrupted},
                     {"elapsed_seconds", report.elapsed_s},
                     {"arrivals", report.arrivals},
                     {"dropped_by_client", report.dropped},
                     {"retries", report.retries},
                     {"tokens_in", report.tokens_in},
                     {"tokens_out", report.tokens_out},
                     {"tokens_in_per_second", PerSecond(report.tokens_in, report.elapsed_s)},
                     {"tokens_out_per_second", PerSecond(report.tokens_out, report.elapsed_s)},
                     {"calls", CallsToJson(report)},
                     {"latencies", std::move(latencies)},
                     {"check", ToJson(report.check)},
                     {"unexpected", Json(report.unexpected)},
                     {"ok", report.ok()}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace mneme
