#ifndef MNEME_ENGINE_MODEL_WARM_UP_H_
#define MNEME_ENGINE_MODEL_WARM_UP_H_

// Steps that nobody asked for, before requests come. By them a backend takes the scratch memory
// that it needs and finds out how it computes fastest, so that no request waits for either and what
// is left of the device can be divided among sessions. Where memory is not divided
// (Backend::commits_on_touch) nothing is done.

#include <cstdint>

#include "absl/status/status.h"
#include "engine/loading/config.h"
#include "engine/model/model.h"
#include "engine/session/cache_pools.h"
#include "kernels/backend.h"

namespace mneme {

// Prefill in steps of every size up to `limits.max_step_tokens`, and updates of one session and of
// several, in pools that are gone afterwards: they take half of `limits.limit_bytes` at most, and
// what does not fit is left out. INTERNAL if the device failed.
absl::Status WarmUpPrefill(const ModelConfig& config, Backend& backend, Model& model,
                           const CacheOptions& limits);

// The decode steps that the backend repeats, so that all are recorded; `pools` are those that the
// sessions will have, and hold nothing before and after. INTERNAL if the device failed.
absl::Status WarmUpDecode(const Backend& backend, Model& model, CachePools& pools,
                          int64_t max_step_tokens);

}  // namespace mneme

#endif  // MNEME_ENGINE_MODEL_WARM_UP_H_
