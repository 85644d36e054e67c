#include "bench/report.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/version.h"
#include "bench/statistics.h"

namespace mneme {
namespace {

using nlohmann::ordered_json;

template <typename Figure>
double MedianOf(const std::vector<Sample>& samples, const Figure& figure) {
  std::vector<double> values;
  for (const Sample& sample : samples) values.push_back(figure(sample));
  return Median(std::move(values));
}

Measurement Summarize(int64_t tokens, const std::vector<Sample>& samples) {
  Measurement m;
  m.tokens = tokens;
  m.wall_ms = MedianOf(samples, [](const Sample& s) { return s.engine.wall_ms; });
  m.cpu_ms = MedianOf(samples, [](const Sample& s) { return s.engine.cpu_ms; });
  m.matmul_wall_ms = MedianOf(samples, [](const Sample& s) { return s.matmul.wall_ms; });
  m.matmul_cpu_ms = MedianOf(samples, [](const Sample& s) { return s.matmul.cpu_ms; });
  m.matmul_share =
      MedianOf(samples, [](const Sample& s) { return s.matmul.wall_ms / s.engine.wall_ms; });
  m.matmul_cpu_share =
      MedianOf(samples, [](const Sample& s) { return s.matmul.cpu_ms / s.engine.cpu_ms; });
  m.matmul_gigaflops_per_second = 1e3 * samples[0].gigaflops / m.matmul_wall_ms;
  m.chunks_closed = samples[0].chunks_closed;
  m.tokens_per_second = 1e3 * static_cast<double>(tokens) / m.wall_ms;
  return m;
}

double CostPercent(const std::vector<Sample>& off, const std::vector<Sample>& on,
                   double Duration::*time) {
  std::vector<double> costs;
  for (size_t i = 0; i < off.size(); ++i) {
    costs.push_back(100 * (on[i].engine.*time / off[i].engine.*time - 1));
  }
  return Median(std::move(costs));
}

std::string Row(const char* phase, const char* learning, const Measurement& m) {
  return absl::StrFormat("%-8s %-8s %7d %10.1f %10.1f %10.1f %8.1f %% %9.1f %% %9.1f\n", phase,
                         learning, m.tokens, m.tokens_per_second, m.wall_ms, m.matmul_wall_ms,
                         100 * m.matmul_share, 100 * m.matmul_cpu_share,
                         m.matmul_gigaflops_per_second);
}

std::string Rows(const char* phase, const PhaseReport& report) {
  std::string rows = Row(phase, "off", report.learning_off);
  if (report.learning_on) absl::StrAppend(&rows, Row(phase, "on", *report.learning_on));
  return rows;
}

std::string Cost(const char* phase, const PhaseReport& report) {
  if (!report.learning_on) return "";
  const Measurement& on = *report.learning_on;
  return absl::StrFormat(
      "learning costs %.1f %% of %s (%.1f %% of its processor time); %d chunks closed\n",
      report.learning_cost_percent, phase, report.learning_cost_cpu_percent, on.chunks_closed);
}

constexpr char kLegend[] =
    "Medians over the repeats. matmul ms: the same products by the matmul library alone, with "
    "weights\npacked; learning's own are in the lines where it is on. cpu share: the same of "
    "processor time.\n";

ordered_json Json(const Measurement& m) {
  return {{"tokens", m.tokens},
          {"tokens_per_second", m.tokens_per_second},
          {"wall_ms", m.wall_ms},
          {"cpu_ms", m.cpu_ms},
          {"matmul_wall_ms", m.matmul_wall_ms},
          {"matmul_cpu_ms", m.matmul_cpu_ms},
          {"matmul_share", m.matmul_share},
          {"matmul_cpu_share", m.matmul_cpu_share},
          {"matmul_gigaflops_per_second", m.matmul_gigaflops_per_second},
          {"chunks_closed", m.chunks_closed}};
}

ordered_json Json(const PhaseReport& report) {
  ordered_json json = {{"learning_off", Json(report.learning_off)}};
  if (!report.learning_on) return json;
  json["learning_on"] = Json(*report.learning_on);
  json["learning_cost_percent"] = report.learning_cost_percent;
  json["learning_cost_cpu_percent"] = report.learning_cost_cpu_percent;
  return json;
}

}  // namespace

PhaseReport SummarizePhase(int64_t tokens, const std::vector<Sample>& off,
                           const std::vector<Sample>& on) {
  PhaseReport report;
  report.learning_off = Summarize(tokens, off);
  if (on.empty()) return report;
  report.learning_on = Summarize(tokens, on);
  report.learning_cost_percent = CostPercent(off, on, &Duration::wall_ms);
  report.learning_cost_cpu_percent = CostPercent(off, on, &Duration::cpu_ms);
  return report;
}

std::string ReportText(const BenchReport& report) {
  const BenchOptions& o = report.options;
  return absl::StrCat(
      report.model, "\n", report.backend, "\n",
      absl::StrFormat("C = %d, steps of %d tokens, decode from position %d, %d repeats\n\n",
                      report.chunk, o.step_tokens, o.decode_begin(), o.repeat),
      absl::StrFormat("%-8s %-8s %7s %10s %10s %10s %10s %11s %9s\n", "phase", "learning", "tokens",
                      "tokens/s", "ms", "matmul ms", "its share", "cpu share", "GFLOP/s"),
      Rows("prefill", report.prefill), Rows("decode", report.decode), "\n",
      Cost("prefill", report.prefill), Cost("decode", report.decode), kLegend);
}

std::string ReportJson(const BenchReport& report) {
  const BenchOptions& o = report.options;
  const ordered_json json = {{"version", kVersion},
                             {"model", report.model},
                             {"backend", report.backend},
                             {"chunk", report.chunk},
                             {"step_tokens", o.step_tokens},
                             {"context", o.decode_begin()},
                             {"repeat", o.repeat},
                             {"seed", o.seed},
                             {"prefill", Json(report.prefill)},
                             {"decode", Json(report.decode)}};
  return json.dump(2) + "\n";
}

}  // namespace mneme
