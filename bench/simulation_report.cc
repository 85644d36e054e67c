// The tables and JSON of simulations.

#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "bench/simulation.h"
#include "nlohmann/json.hpp"

namespace mneme {

std::string SimulationText(const std::vector<SimulationReport>& reports) {
  std::string text = absl::StrFormat(
      "%-10s %-10s %19s %19s %17s %12s %9s %9s %8s %9s\n%-10s %-10s %9s %9s %9s %9s %17s %12s %9s "
      "%9s "
      "%8s %9s\n",
      "scenario", "policy", "first token, ms", "between tokens, ms", "polite, first, ms",
      "learnt, ms", "tokens/s", "good/s", "refused", "fairness", "", "", "p50", "p99", "p50", "p99",
      "p99", "p99", "", "", "", "");
  for (const SimulationReport& r : reports) {
    text += absl::StrFormat(
        "%-10s %-10s %9.1f %9.1f %9.2f %9.2f %17.1f %12.1f %9.0f %9.2f %7.2f%% %9.3f\n", r.scenario,
        r.policy, r.first_token.QuantileMs(0.5), r.first_token.QuantileMs(0.99),
        r.between.QuantileMs(0.5), r.between.QuantileMs(0.99),
        r.polite_first_token.QuantileMs(0.99), r.update_wait.QuantileMs(0.99), r.tokens_per_second,
        r.goodput, 100.0 * static_cast<double>(r.refused) / static_cast<double>(r.requests),
        r.fairness);
  }
  return text;
}

std::string SimulationJson(const std::vector<SimulationReport>& reports) {
  nlohmann::json rows = nlohmann::json::array();
  for (const SimulationReport& r : reports) {
    rows.push_back({{"scenario", r.scenario},
                    {"policy", r.policy},
                    {"requests", r.requests},
                    {"refused", r.refused},
                    {"steps", r.steps},
                    {"virtual_seconds", r.seconds},
                    {"first_token_p50_ms", r.first_token.QuantileMs(0.5)},
                    {"first_token_p99_ms", r.first_token.QuantileMs(0.99)},
                    {"between_tokens_p50_ms", r.between.QuantileMs(0.5)},
                    {"between_tokens_p99_ms", r.between.QuantileMs(0.99)},
                    {"polite_first_token_p99_ms", r.polite_first_token.QuantileMs(0.99)},
                    {"update_wait_p50_ms", r.update_wait.QuantileMs(0.5)},
                    {"update_wait_p99_ms", r.update_wait.QuantileMs(0.99)},
                    {"tokens_per_second", r.tokens_per_second},
                    {"good_chats_per_second", r.goodput},
                    {"fairness", r.fairness}});
  }
  return nlohmann::json{{"runs", rows}}.dump(2) + "\n";
}

}  // namespace mneme
