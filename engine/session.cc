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
  return {.key = key_,
          .position = static_cast<uint64_t>(position()),
          .version = version(),
          .device_bytes = state_.cache().held_bytes(),
          .host_bytes = host_bytes(),
          .options = {.controls = controls_.latest(), .labels = labels_, .ttl = ttl_},
          .create_time = create_time_,
          .last_used_time = last_used_time_};
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
