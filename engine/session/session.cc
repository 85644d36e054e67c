#include "engine/session/session.h"

#include <utility>

namespace mneme {

Session::Session(SessionKey key, SessionOptions options, CachePools& pools, absl::Time now)
    : key_(std::move(key)),
      chunk_(pools.chunk()),
      controls_(options.controls),
      state_(pools),
      labels_(std::move(options.labels)),
      ttl_(options.ttl),
      create_time_(now),
      last_used_time_(now) {}

SessionInfo Session::info() const {
  const Residence residence = ready()    ? Residence::kDevice
                              : loaded() ? Residence::kRestoring
                                         : Residence::kDisk;
  return {.key = key_,
          .residence = residence,
          .position = static_cast<uint64_t>(position()),
          .version = version(),
          .device_bytes = state_.cache().held_bytes(),
          .host_bytes = host_bytes(),
          .options = {.controls = controls_.latest(), .labels = labels_, .ttl = ttl_},
          .create_time = create_time_,
          .last_used_time = last_used_time_,
          .checkpoints = checkpoints_};
}

void Session::Park(uint32_t epoch, int64_t position) {
  epoch_ = epoch;
  parked_position_ = position;
}

void Session::Unload() {
  Park(epoch_, position());
  state_.Reset();
  log_ = std::vector<int32_t>();
  controls_ = ControlLog(controls_.latest());
  replay_.reset();
  open_turn_.reset();
  records_ = RequestRecords();
}

void Session::Load(SessionLogs logs) {
  parked_position_.reset();
  const LearningControls latest = controls_.latest();
  if (!(logs.controls.latest() == latest)) {
    logs.controls.Set(static_cast<int64_t>(logs.tokens.size()), latest);
  }
  Become(std::move(logs));
}

SessionLogs Session::LogsAt(int64_t position) const {
  SessionLogs logs = {.tokens = {log_.begin(), log_.begin() + position},
                      .controls = controls_.Until(position),
                      .updates = replay_ ? replay_->updates() : state_.update_log().points()};
  std::erase_if(logs.updates,
                [position](const UpdatePoint& point) { return point.position > position; });
  if (open_turn_.value_or(0) <= position) logs.open_turn = open_turn_;
  return logs;
}

void Session::RollBack(SessionLogs logs) {
  const auto position = static_cast<int64_t>(logs.tokens.size());
  if (!ComputedWithin(position)) state_.Reset();
  logs.records = std::move(records_);
  logs.records.ForgetBehind(position);
  std::erase_if(checkpoints_, [position](const auto& named) { return named.second > position; });
  ++epoch_;
  Become(std::move(logs));
}

void Session::Become(SessionLogs logs) {
  log_ = std::move(logs.tokens);
  controls_ = std::move(logs.controls);
  open_turn_ = logs.open_turn;
  records_ = std::move(logs.records);
  Replay replay(position(), std::move(logs.updates), controls_.max_lag_chunks(), chunk_);
  replay_.reset();
  if (!replay.DoneAt(state_)) replay_ = std::move(replay);
}

int64_t Session::host_bytes() const {
  return static_cast<int64_t>(log_.capacity() * sizeof(int32_t)) + records_.size_bytes() +
         state_.update_log().size_bytes();
}

uint64_t Session::VersionAt(int64_t position) const {
  return (static_cast<uint64_t>(epoch_) << 32) + static_cast<uint64_t>(ChunksClosedAt(position));
}

void Session::Log(absl::Span<const int32_t> tokens) {
  log_.insert(log_.end(), tokens.begin(), tokens.end());
}

void Session::Update(const SessionUpdate& update) {
  if (!update.controls.empty()) {
    controls_.Set(position(), update.controls.AppliedTo(controls_.latest()));
  }
  if (update.labels) labels_ = *update.labels;
  if (update.ttl) ttl_ = *update.ttl;
}

std::vector<std::string> Session::CheckpointNames() const {
  std::vector<std::string> names;
  for (const auto& [name, position] : checkpoints_) names.push_back(name);
  return names;
}

absl::Time Session::expiry() const {
  return ttl_ ? last_used_time_ + *ttl_ : absl::InfiniteFuture();
}

}  // namespace mneme
