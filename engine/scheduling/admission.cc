#include "engine/scheduling/admission.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/error.h"

namespace mneme {
namespace {

// What is kept for tenants below their share; also what a refused one waits for to be free.
int64_t ReserveOf(int64_t limit) { return limit / 8; }

bool IsFull(int64_t limit, int64_t all, int64_t of_tenant, double share, int64_t more) {
  const bool within_share =
      static_cast<double>(of_tenant + more) <= share * static_cast<double>(limit);
  return all + more > (within_share ? limit : limit - ReserveOf(limit));
}

absl::Status QueueFull(const std::string& what, absl::Duration retry_delay) {
  return MakeError(
      absl::StatusCode::kResourceExhausted,
      absl::StrCat("the queue is full: ", what, "; try again in ",
                   absl::FormatDuration(retry_delay)),
      {.reason = ErrorReason::kQueueFull, .retryable = true, .retry_delay = retry_delay});
}

}  // namespace

absl::Duration DrainTime(double amount, double per_second) {
  if (per_second <= 0) return absl::Seconds(1);
  const double seconds = std::clamp(amount / per_second, 0.1, 60.0);
  return absl::Milliseconds(static_cast<int64_t>(seconds * 1000));
}

absl::Status CheckQueue(const QueueLimits& limits, const QueueState& queue, int64_t input_tokens) {
  if (input_tokens > limits.tokens) {
    return MakeError(absl::StatusCode::kResourceExhausted,
                     absl::StrCat("the input of ", input_tokens,
                                  " tokens is longer than the whole queue (--max_queued_tokens ",
                                  limits.tokens, "); send it in parts, with Append"),
                     {.reason = ErrorReason::kOutOfMemory, .retryable = false});
  }
  if (IsFull(limits.requests, queue.requests, queue.tenant_requests, queue.tenant_share, 1)) {
    const auto room = static_cast<double>(std::max<int64_t>(ReserveOf(limits.requests), 1));
    return QueueFull(absl::StrCat(queue.requests, " requests are in flight (--max_queued_requests ",
                                  limits.requests, ")"),
                     DrainTime(room, queue.requests_per_second));
  }
  if (IsFull(limits.tokens, queue.tokens, queue.tenant_tokens, queue.tenant_share, input_tokens)) {
    const auto room = static_cast<double>(std::max(ReserveOf(limits.tokens), input_tokens));
    return QueueFull(absl::StrCat(queue.tokens, " tokens of input wait (--max_queued_tokens ",
                                  limits.tokens, ")"),
                     DrainTime(room, queue.tokens_per_second));
  }
  return absl::OkStatus();
}

}  // namespace mneme
