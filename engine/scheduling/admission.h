#ifndef MNEME_ENGINE_SCHEDULING_ADMISSION_H_
#define MNEME_ENGINE_SCHEDULING_ADMISSION_H_

// Whether one more request is accepted, and when a refused one should come again: pure functions.

#include <cstdint>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace mneme {

// Of requests that are accepted and have not ended, running ones included.
struct QueueLimits {
  int64_t requests = 0;
  int64_t tokens = 0;  // of their input, not computed yet
};

struct QueueState {
  int64_t requests = 0, tokens = 0;                // of everybody
  int64_t tenant_requests = 0, tenant_tokens = 0;  // of the tenant that asks
  double tenant_share = 1;                         // of the queue, by weight: (0, 1]
  double requests_per_second = 0;                  // that have ended of late; 0: none yet
  double tokens_per_second = 0;                    // of input, computed of late
};

// OK, or RESOURCE_EXHAUSTED for a request with `input_tokens` known so far: with a retry delay if
// the queue is full, for good if it alone would be too much for it. An eighth of the queue is kept
// for tenants that use less than their share, so that one who fills it locks nobody out.
absl::Status CheckQueue(const QueueLimits& limits, const QueueState& queue, int64_t input_tokens);

// How long so much takes to go at this rate, between a tenth of a second and a minute; a second
// where no rate is known.
absl::Duration DrainTime(double amount, double per_second);

}  // namespace mneme

#endif  // MNEME_ENGINE_SCHEDULING_ADMISSION_H_
