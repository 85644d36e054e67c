#ifndef MNEME_ENGINE_LOADING_CONFIG_ROPE_H_
#define MNEME_ENGINE_LOADING_CONFIG_ROPE_H_

#include "absl/status/statusor.h"
#include "engine/loading/config.h"
#include "engine/loading/config_json.h"

namespace mneme {

// Reads the rotary embedding from a model's configuration: `rope_theta` with `rope_scaling`, or the
// newer `rope_parameters`. UNIMPLEMENTED for kinds other than those of RopeKind.
absl::StatusOr<RopeConfig> ParseRopeConfig(ConfigJson& config);

}  // namespace mneme

#endif  // MNEME_ENGINE_LOADING_CONFIG_ROPE_H_
