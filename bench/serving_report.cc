#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/serving.h"

namespace mneme {
namespace {

std::string BoundText(const ServingReport& r) {
  if (!r.bound) return "";
  const StepBound& b = *r.bound;
  const double bound = static_cast<double>(r.sessions) / b.seconds();
  return absl::StrFormat(
      "  reading %6.1f MB   %8.2f ms         at %.1f GB/s\n"
      "  %6.2f Gflop         %8.2f ms         at %.1f Gflop/s\n"
      "  bound               %8.0f tokens/s   reached: %.1f %%\n",
      b.bytes / 1e6, 1e3 * b.bytes / b.bytes_per_second, b.bytes_per_second / 1e9, b.flops / 1e9,
      1e3 * b.flops / b.flops_per_second, b.flops_per_second / 1e9, bound,
      100 * r.together_tokens_per_second / bound);
}

std::string MovesText(const char* name, const Moves& moves) {
  if (moves.count == 0) return "";
  const auto count = static_cast<double>(moves.count);
  const double ms = absl::ToDoubleMilliseconds(moves.time);
  return absl::StrFormat("  %-9s %4d times  %8.2f MB %8.2f ms each, %.1f GB/s\n", name, moves.count,
                         static_cast<double>(moves.bytes) / 1e6 / count, ms / count,
                         static_cast<double>(moves.bytes) / 1e6 / ms);
}

std::string MovesText(const ServingReport& r) {
  if (r.parked.count == 0) return "";
  return absl::StrCat("states between device and host\n", MovesText("parked", r.parked),
                      MovesText("back", r.unparked),
                      absl::StrFormat("  one copy  %8.1f GB/s to the host, %.1f GB/s back\n",
                                      r.copy_to_host_gb_s, r.copy_from_host_gb_s),
                      absl::StrFormat("  a stream  %8.2f ms p50 before %8.2f ms p50 meanwhile\n",
                                      r.before_moves_p50_ms, r.during_moves_p50_ms));
}

std::string TogetherText(const ServingReport& r) {
  if (r.together_tokens_per_second == 0) return "";
  return absl::StrFormat(
      "%d sessions generate together\n"
      "  alone               %8.0f tokens/s\n"
      "  together            %8.0f tokens/s   %.2f times one alone, %.2f ms a step\n"
      "%s",
      r.sessions, r.alone_tokens_per_second, r.together_tokens_per_second,
      r.together_tokens_per_second / r.alone_tokens_per_second, r.together_step_ms, BoundText(r));
}

std::string BesideText(const ServingReport& r) {
  if (r.limit_ms == 0) return "";
  return absl::StrFormat(
      "a stream, and %d documents\n"
      "  alone               %8.2f ms p50 %8.2f ms p99\n"
      "  beside documents    %8.2f ms p50 %8.2f ms p99   limit %.2f ms: %.1f %% of it\n"
      "  documents           %8.0f tokens/s\n",
      r.documents, r.alone_p50_ms, r.alone_p99_ms, r.beside_p50_ms, r.beside_p99_ms, r.limit_ms,
      100 * r.beside_p99_ms / r.limit_ms, r.document_tokens_per_second);
}

std::string UpdatesText(const ServingReport& r) {
  if (r.idle_updates == 0) return "";
  return absl::StrFormat(
      "a stream, and %d updates that nobody waits for\n"
      "  beside them         %8.3f ms mean     afterwards %.3f ms: %+.2f %%\n",
      r.idle_updates, r.beside_updates_mean_ms, r.after_updates_mean_ms,
      100 * (r.beside_updates_mean_ms / r.after_updates_mean_ms - 1));
}

}  // namespace

std::string ServingText(const ServingReport& report) {
  return TogetherText(report) + BesideText(report) + UpdatesText(report) + MovesText(report);
}

}  // namespace mneme
