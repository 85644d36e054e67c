#include "engine/request.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/error.h"

namespace mneme {
namespace {

absl::Status Invalid(const std::string& message) {
  return MakeError(absl::StatusCode::kInvalidArgument, message,
                   {.reason = ErrorReason::kInvalidInput});
}

bool IsIdCharacter(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == ':' ||
         c == '-';
}

bool IsName(const std::string& text) {
  return !text.empty() && text.size() <= 128 &&
         std::all_of(text.begin(), text.end(), IsIdCharacter);
}

absl::Status CheckNotNegative(const char* field, float value) {
  if (std::isfinite(value) && value >= 0) return absl::OkStatus();
  return Invalid(absl::StrCat("controls.", field, " must be a finite number ≥ 0, not ", value));
}

}  // namespace

absl::Status ValidateSessionId(const std::string& id) {
  if (IsName(id)) return absl::OkStatus();
  return Invalid("a session id is 1 to 128 characters of A-Z a-z 0-9 . _ : -");
}

absl::Status ValidateTenant(const std::string& name) {
  if (IsName(name)) return absl::OkStatus();
  return Invalid("a tenant's name is 1 to 128 characters of A-Z a-z 0-9 . _ : -");
}

absl::Status ValidateCheckpointName(const std::string& name) {
  if (IsName(name)) return absl::OkStatus();
  return Invalid("a checkpoint's name is 1 to 128 characters of A-Z a-z 0-9 . _ : -");
}

absl::Status ValidateControls(const LearningControls& controls) {
  MNEME_RETURN_IF_ERROR(CheckNotNegative("clip_norm", controls.clip_norm));
  MNEME_RETURN_IF_ERROR(CheckNotNegative("decay", controls.decay));
  MNEME_RETURN_IF_ERROR(CheckNotNegative("lr_scale", controls.lr_scale));
  MNEME_RETURN_IF_ERROR(CheckNotNegative("max_relative_norm", controls.max_relative_norm));
  if (controls.decay >= 1) {
    return Invalid(absl::StrCat("controls.decay must be less than 1, not ", controls.decay));
  }
  if (controls.max_lag_chunks >= 0 && controls.max_lag_chunks <= kMaxLagChunks) {
    return absl::OkStatus();
  }
  return Invalid(absl::StrCat("controls.max_lag_chunks must be at most ", kMaxLagChunks, ", not ",
                              controls.max_lag_chunks));
}

ControlsUpdate ControlsUpdate::All(const LearningControls& controls) {
  return {.max_lag_chunks = controls.max_lag_chunks,
          .clip_norm = controls.clip_norm,
          .decay = controls.decay,
          .lr_scale = controls.lr_scale,
          .max_relative_norm = controls.max_relative_norm,
          .freeze = controls.freeze};
}

LearningControls ControlsUpdate::AppliedTo(const LearningControls& controls) const {
  return {.max_lag_chunks = max_lag_chunks.value_or(controls.max_lag_chunks),
          .clip_norm = clip_norm.value_or(controls.clip_norm),
          .decay = decay.value_or(controls.decay),
          .lr_scale = lr_scale.value_or(controls.lr_scale),
          .max_relative_norm = max_relative_norm.value_or(controls.max_relative_norm),
          .freeze = freeze.value_or(controls.freeze)};
}

}  // namespace mneme
