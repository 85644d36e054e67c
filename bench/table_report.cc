#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/version.h"
#include "bench/table.h"

namespace mneme {
namespace {

using nlohmann::ordered_json;

// Of the same workload, with the other setting of learning; null: there is none.
const TableRow* Other(const BenchTable& table, const TableRow& row) {
  for (const TableRow& other : table.rows) {
    if (NameOf(other.workload) == NameOf(row.workload) && other.learning != row.learning) {
      return &other;
    }
  }
  return nullptr;
}

// What learning adds, in microseconds a token of one stream; 0 for a row without it.
double LearningUsPerToken(const BenchTable& table, const TableRow& row) {
  const TableRow* off = row.learning ? Other(table, row) : nullptr;
  if (off == nullptr) return 0;
  return 1e6 / row.tokens_per_second - 1e6 / off->tokens_per_second;
}

std::string Line(const BenchTable& table, const TableRow& row) {
  return absl::StrFormat("%-16s %-8s %9.0f %10.3f %10.3f %9.2f %9.1f %10.3f %7.1f %% %9.3f\n",
                         NameOf(row.workload), row.learning ? "on" : "off", row.tokens_per_second,
                         row.ms, row.p99_ms, row.work.bytes / 1e9, row.work.flops / 1e12,
                         row.floor_ms, 100 * row.floor_ms / row.ms, LearningUsPerToken(table, row));
}

constexpr char kLegend[] =
    "ms: median of a step (decode) or of a prefill; GB and TFLOP: the least it must move and "
    "compute;\nfloor: the larger of the two at the ceilings; share: floor / ms; on - off: "
    "microseconds that\nlearning adds to a token.\n";

}  // namespace

std::string TableText(const BenchTable& table) {
  std::string text = absl::StrCat(
      table.model, "\n", table.backend, "\n",
      absl::StrFormat("C = %d, steps of %d tokens; ceilings: %.2f TB/s copied, %.1f TFLOP/s\n\n",
                      table.chunk, table.step_tokens, table.ceilings.bytes_per_second / 1e12,
                      table.ceilings.flops_per_second / 1e12),
      absl::StrFormat("%-16s %-8s %9s %10s %10s %9s %9s %10s %9s %9s\n", "work", "learning",
                      "tokens/s", "ms", "p99 ms", "GB", "TFLOP", "floor ms", "share", "on - off"));
  for (const TableRow& row : table.rows) absl::StrAppend(&text, Line(table, row));
  return absl::StrCat(text, kLegend);
}

std::string TableJson(const BenchTable& table) {
  ordered_json rows = ordered_json::array();
  for (const TableRow& row : table.rows) {
    rows.push_back({{"work", NameOf(row.workload)},
                    {"streams", row.workload.streams},
                    {"tokens", row.workload.tokens},
                    {"learning", row.learning},
                    {"tokens_per_second", row.tokens_per_second},
                    {"ms", row.ms},
                    {"p99_ms", row.p99_ms},
                    {"bytes", row.work.bytes},
                    {"flops", row.work.flops},
                    {"floor_ms", row.floor_ms},
                    {"share_of_floor", row.floor_ms / row.ms},
                    {"learning_us_per_token", LearningUsPerToken(table, row)},
                    {"chunks_closed", row.chunks_closed},
                    {"updates_skipped", row.updates_skipped}});
  }
  const ordered_json json = {{"version", kVersion},
                             {"model", table.model},
                             {"backend", table.backend},
                             {"chunk", table.chunk},
                             {"step_tokens", table.step_tokens},
                             {"ceilings",
                              {{"bytes_per_second", table.ceilings.bytes_per_second},
                               {"flops_per_second", table.ceilings.flops_per_second}}},
                             {"rows", rows}};
  return json.dump(2) + "\n";
}

}  // namespace mneme
