#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/version.h"
#include "bench/precision.h"

namespace mneme {

using nlohmann::ordered_json;

std::string PrecisionText(const PrecisionReport& report) {
  std::string text = absl::StrFormat(
      "%s\n%d tokens, C = %d, %d chunks closed; mean log-probability without learning %.5f\n\n"
      "%-10s %-10s %14s %12s %12s %10s %12s %10s\n",
      report.backend, report.tokens, report.chunk, report.updates, report.frozen_mean_logprob,
      "accumulate", "read", "bytes/session", "mean logp", "difference", "rms error", "last quarter",
      "largest");
  for (const PrecisionRow& row : report.rows) {
    absl::StrAppendFormat(&text, "%-10s %-10s %14d %12.5f %+12.6f %10.5f %12.5f %10.4f\n",
                          NameOf(row.accumulate), NameOf(row.read), row.delta_bytes,
                          row.mean_logprob, row.mean_difference, row.rms_error,
                          row.last_quarter_rms_error, row.largest_error);
  }
  return absl::StrCat(text,
                      "Errors are of a token's natural-log probability, against the first row; "
                      "the last row is the\nfirst once more: what two runs alike differ by.\n");
}

std::string PrecisionJson(const PrecisionReport& report) {
  ordered_json rows = ordered_json::array();
  for (const PrecisionRow& row : report.rows) {
    rows.push_back({{"accumulate", NameOf(row.accumulate)},
                    {"read", NameOf(row.read)},
                    {"delta_bytes", row.delta_bytes},
                    {"mean_logprob", row.mean_logprob},
                    {"mean_difference", row.mean_difference},
                    {"rms_error", row.rms_error},
                    {"last_quarter_rms_error", row.last_quarter_rms_error},
                    {"largest_error", row.largest_error}});
  }
  const ordered_json json = {{"version", kVersion},
                             {"backend", report.backend},
                             {"tokens", report.tokens},
                             {"chunk", report.chunk},
                             {"updates", report.updates},
                             {"frozen_mean_logprob", report.frozen_mean_logprob},
                             {"rows", rows}};
  return json.dump(2) + "\n";
}

}  // namespace mneme
