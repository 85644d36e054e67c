#include "engine/session.h"

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
          .last_used_time = last_used_time_};
}

void Session::Park(uint32_t epoch, int64_t position) {
  epoch_ = epoch;
  parked_position_ = position;
}

void Session::Load(SessionLogs logs) {
  parked_position_.reset();
  log_ = std::move(logs.tokens);
  const LearningControls latest = controls_.latest();
  controls_ = std::move(logs.controls);
  if (!(controls_.latest() == latest)) controls_.Set(position(), latest);
  open_turn_ = logs.open_turn;
  records_ = std::move(logs.records);
  Replay replay(position(), std::move(logs.updates), controls_.max_lag_chunks(), chunk_);
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

absl::Time Session::expiry() const {
  return ttl_ ? last_used_time_ + *ttl_ : absl::InfiniteFuture();
}

}  // namespace mneme
