#include "server/convert_session.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "server/convert_status.h"

namespace mneme {
namespace {

constexpr int kMaxLabels = 64;
constexpr size_t kMaxLabelKeyBytes = 63;
constexpr size_t kMaxLabelValueBytes = 255;
constexpr int64_t kMaxTtlSeconds = 315'576'000'000;  // what protobuf's Duration may hold
constexpr uint32_t kDefaultPageSize = 100;
constexpr uint32_t kMaxPageSize = 1000;
constexpr char kPageTokenPrefix[] = "after=";

using Labels = std::map<std::string, std::string>;

absl::StatusOr<Labels> ToLabels(const google::protobuf::Map<std::string, std::string>& proto) {
  if (proto.size() > kMaxLabels) {
    return InvalidField("labels", absl::StrCat("a session has at most ", kMaxLabels,
                                               " labels, not ", proto.size()));
  }
  Labels labels;
  for (const auto& [key, value] : proto) {
    if (key.empty() || key.size() > kMaxLabelKeyBytes || value.size() > kMaxLabelValueBytes) {
      return InvalidField(
          "labels", absl::StrCat("a label has a key of 1 to ", kMaxLabelKeyBytes,
                                 " bytes and a value of at most ", kMaxLabelValueBytes, ", not of ",
                                 key.size(), " and ", value.size()));
    }
    labels.emplace(key, value);
  }
  return labels;
}

absl::StatusOr<absl::Duration> ToTtl(const google::protobuf::Duration& proto) {
  constexpr int32_t kNanosPerSecond = 1'000'000'000;
  const bool in_range = proto.seconds() >= 0 && proto.seconds() <= kMaxTtlSeconds &&
                        proto.nanos() >= 0 && proto.nanos() < kNanosPerSecond;
  if (in_range && (proto.seconds() > 0 || proto.nanos() > 0)) {
    return absl::Seconds(proto.seconds()) + absl::Nanoseconds(proto.nanos());
  }
  return InvalidField("ttl", absl::StrCat("ttl must be positive and well-formed, not ",
                                          proto.seconds(), " s and ", proto.nanos(), " ns"));
}

// Update mode and max_lag_chunks, which are one setting.
absl::StatusOr<int64_t> ToMaxLagChunks(const v1::LearningControls& proto) {
  const int64_t chunks = proto.max_lag_chunks();
  switch (proto.update_mode()) {
    case v1::UPDATE_MODE_UNSPECIFIED:
    case v1::UPDATE_MODE_EXACT:
      if (chunks == 0) return 0;
      return InvalidField("controls.max_lag_chunks",
                          absl::StrCat("max_lag_chunks must be 0, not ", chunks,
                                       ", unless update_mode is UPDATE_MODE_DEFERRED"));
    case v1::UPDATE_MODE_DEFERRED:
      if (chunks >= 1 && chunks <= kMaxLagChunks) return chunks;
      return InvalidField("controls.max_lag_chunks",
                          absl::StrCat("with UPDATE_MODE_DEFERRED max_lag_chunks must be 1 to ",
                                       kMaxLagChunks, ", not ", chunks));
    default:
      return InvalidField("controls.update_mode",
                          absl::StrCat("there is no update_mode ", proto.update_mode()));
  }
}

// The controls of `proto`, absent ones at their defaults.
absl::StatusOr<LearningControls> ToControls(const v1::LearningControls& proto) {
  LearningControls controls;
  MNEME_ASSIGN_OR_RETURN(controls.max_lag_chunks, ToMaxLagChunks(proto));
  if (proto.has_clip_norm()) controls.clip_norm = proto.clip_norm();
  if (proto.has_decay()) controls.decay = proto.decay();
  if (proto.has_lr_scale()) controls.lr_scale = proto.lr_scale();
  if (proto.has_max_relative_norm()) controls.max_relative_norm = proto.max_relative_norm();
  if (proto.has_freeze()) controls.freeze = proto.freeze();
  return controls;
}

// Takes over the control `name` of `from`; false if there is none of this name.
bool CopyControl(const std::string& name, const LearningControls& from, ControlsUpdate& to) {
  if (name == "update_mode" || name == "max_lag_chunks") {
    to.max_lag_chunks = from.max_lag_chunks;
  } else if (name == "clip_norm") {
    to.clip_norm = from.clip_norm;
  } else if (name == "decay") {
    to.decay = from.decay;
  } else if (name == "lr_scale") {
    to.lr_scale = from.lr_scale;
  } else if (name == "max_relative_norm") {
    to.max_relative_norm = from.max_relative_norm;
  } else if (name == "freeze") {
    to.freeze = from.freeze;
  } else {
    return false;
  }
  return true;
}

absl::Status ApplyPath(const std::string& path, const v1::Session& session,
                       const LearningControls& given, SessionUpdate& update) {
  absl::string_view control = path;
  if (path == "labels") {
    MNEME_ASSIGN_OR_RETURN(update.labels, ToLabels(session.labels()));
  } else if (path == "ttl") {
    update.ttl.emplace();
    if (!session.has_ttl()) return absl::OkStatus();
    MNEME_ASSIGN_OR_RETURN(*update.ttl, ToTtl(session.ttl()));
  } else if (path == "controls") {
    update.controls = ControlsUpdate::All(given);
  } else {
    if (!absl::ConsumePrefix(&control, "controls.") ||
        !CopyControl(std::string(control), given, update.controls)) {
      return InvalidField("update_mask",
                          absl::StrCat("\"", absl::Utf8SafeCHexEscape(path),
                                       "\" cannot be updated; paths are labels, ttl, controls and "
                                       "controls.clip_norm, .decay, .lr_scale, "
                                       ".max_relative_norm, .freeze, .update_mode, "
                                       ".max_lag_chunks"));
    }
  }
  return absl::OkStatus();
}

// Controls that differ from their defaults; the others stay absent.
void ToProto(const LearningControls& controls, v1::LearningControls* proto) {
  const LearningControls defaults;
  const bool deferred = controls.max_lag_chunks > 0;
  proto->set_update_mode(deferred ? v1::UPDATE_MODE_DEFERRED : v1::UPDATE_MODE_EXACT);
  proto->set_max_lag_chunks(static_cast<uint32_t>(controls.max_lag_chunks));
  if (controls.clip_norm != defaults.clip_norm) proto->set_clip_norm(controls.clip_norm);
  if (controls.decay != defaults.decay) proto->set_decay(controls.decay);
  if (controls.lr_scale != defaults.lr_scale) proto->set_lr_scale(controls.lr_scale);
  if (controls.max_relative_norm != defaults.max_relative_norm) {
    proto->set_max_relative_norm(controls.max_relative_norm);
  }
  if (controls.freeze != defaults.freeze) proto->set_freeze(controls.freeze);
}

void SetResidence(Residence residence, v1::Session* proto) {
  switch (residence) {
    case Residence::kDevice:
      proto->set_state(v1::SESSION_STATE_ACTIVE);
      return proto->set_tier(v1::TIER_DEVICE);
    case Residence::kRestoring:
      proto->set_state(v1::SESSION_STATE_RESTORING);
      return proto->set_tier(v1::TIER_DEVICE);
    case Residence::kHost:
      proto->set_state(v1::SESSION_STATE_PARKED);
      return proto->set_tier(v1::TIER_HOST);
    case Residence::kDisk:
      proto->set_state(v1::SESSION_STATE_PARKED);
      return proto->set_tier(v1::TIER_DISK);
  }
}

absl::StatusOr<HistoryPoint> NamedPoint(const std::string& checkpoint, bool has_position,
                                        const std::string& position_field) {
  if (has_position) {
    return InvalidField("checkpoint",
                        absl::StrCat("give either checkpoint or ", position_field, ", not both"));
  }
  MNEME_RETURN_IF_ERROR(CheckCheckpointName("checkpoint", checkpoint));
  return HistoryPoint(checkpoint);
}

}  // namespace

int64_t ToPosition(uint64_t position) {
  return static_cast<int64_t>(std::min<uint64_t>(position, std::numeric_limits<int64_t>::max()));
}

absl::Status CheckCheckpointName(const std::string& field, const std::string& name) {
  const absl::Status status = name.empty() ? absl::OkStatus() : ValidateCheckpointName(name);
  return status.ok() ? status : InvalidField(field, std::string(status.message()));
}

absl::StatusOr<HistoryPoint> ToHistoryPoint(const v1::ForkSessionRequest& request) {
  if (!request.checkpoint().empty()) {
    return NamedPoint(request.checkpoint(), request.has_at_position(), "at_position");
  }
  if (!request.has_at_position()) return HistoryPoint();
  return HistoryPoint(ToPosition(request.at_position()));
}

absl::StatusOr<HistoryPoint> ToHistoryPoint(const v1::RollbackSessionRequest& request) {
  if (!request.checkpoint().empty()) {
    return NamedPoint(request.checkpoint(), request.has_to_position(), "to_position");
  }
  if (!request.has_to_position()) {
    return InvalidField("to_position", "say where to: to_position (0 empties it), or checkpoint");
  }
  return HistoryPoint(ToPosition(request.to_position()));
}

absl::Status RequireSessionId(const std::string& id) {
  return id.empty() ? InvalidField("session_id", "session_id is missing") : absl::OkStatus();
}

absl::StatusOr<SessionOptions> ToSessionOptions(const v1::CreateSessionRequest& request) {
  SessionOptions options;
  MNEME_ASSIGN_OR_RETURN(options.controls, ToControls(request.controls()));
  MNEME_ASSIGN_OR_RETURN(options.labels, ToLabels(request.labels()));
  if (request.has_ttl()) {
    MNEME_ASSIGN_OR_RETURN(options.ttl, ToTtl(request.ttl()));
  }
  return options;
}

absl::StatusOr<SessionUpdate> ToSessionUpdate(const v1::UpdateSessionRequest& request) {
  if (request.update_mask().paths().empty()) {
    return InvalidField("update_mask", "update_mask names no path, so nothing would change");
  }
  MNEME_ASSIGN_OR_RETURN(const LearningControls given, ToControls(request.session().controls()));
  SessionUpdate update;
  for (const std::string& path : request.update_mask().paths()) {
    MNEME_RETURN_IF_ERROR(ApplyPath(path, request.session(), given, update));
  }
  return update;
}

void ToProto(const CheckpointSummary& summary, v1::CheckpointSessionResponse* proto) {
  proto->set_position(summary.position);
  proto->set_version(summary.version);
  proto->set_checkpoint_bytes(static_cast<uint64_t>(summary.bytes));
  proto->set_session_position(summary.session_position);
}

void ToProto(const SessionInfo& info, const ModelDescription& model, v1::Session* proto) {
  proto->set_session_id(info.key.id);
  proto->set_model(model.name);
  proto->set_position(info.position);
  proto->set_version(info.version);
  proto->set_chunk_size(static_cast<uint32_t>(model.config.ttt ? model.config.ttt->chunk : 0));
  SetResidence(info.residence, proto);
  proto->set_device_bytes(static_cast<uint64_t>(info.device_bytes));
  proto->set_host_bytes(static_cast<uint64_t>(info.host_bytes));
  proto->set_disk_bytes(static_cast<uint64_t>(info.disk_bytes));
  ToProto(info.options.controls, proto->mutable_controls());
  proto->mutable_labels()->insert(info.options.labels.begin(), info.options.labels.end());
  ToProto(info.create_time, proto->mutable_create_time());
  ToProto(info.last_used_time, proto->mutable_last_used_time());
  if (info.options.ttl) ToProto(*info.options.ttl, proto->mutable_ttl());
  for (const auto& [name, position] : info.checkpoints) {
    v1::NamedCheckpoint* checkpoint = proto->add_checkpoints();
    checkpoint->set_name(name);
    checkpoint->set_position(static_cast<uint64_t>(position));
  }
}

absl::StatusOr<std::string> FromPageToken(const std::string& token) {
  if (token.empty()) return std::string();
  std::string decoded;
  absl::string_view after;
  if (absl::WebSafeBase64Unescape(token, &decoded)) {
    after = decoded;
    if (absl::ConsumePrefix(&after, kPageTokenPrefix) && ToPageToken(std::string(after)) == token) {
      return std::string(after);
    }
  }
  return InvalidField("page_token", "page_token is not one that ListSessions gave out");
}

std::string ToPageToken(const std::string& after) {
  return after.empty() ? "" : absl::WebSafeBase64Escape(absl::StrCat(kPageTokenPrefix, after));
}

int ToPageLimit(uint32_t page_size) {
  return static_cast<int>(page_size == 0 ? kDefaultPageSize : std::min(page_size, kMaxPageSize));
}

}  // namespace mneme
