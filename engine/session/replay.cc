#include "engine/session/replay.h"

#include <algorithm>
#include <utility>

namespace mneme {

Replay::Replay(int64_t position, std::vector<UpdatePoint> updates, int64_t max_lag_chunks,
               int64_t chunk)
    : end_(std::max<int64_t>(position - 1, 0)),
      updates_(std::move(updates)),
      max_lag_chunks_(max_lag_chunks),
      chunk_(chunk) {
  if (!updates_.empty()) end_ = std::max(end_, updates_.back().position);
}

int64_t Replay::UpdatesAt(const ComputedState& state) const {
  const size_t applied = std::min(state.update_log().points().size(), updates_.size());
  const auto next = updates_.begin() + static_cast<std::ptrdiff_t>(applied);
  return std::find_if(
             next, updates_.end(),
             [&state](const UpdatePoint& update) { return update.position > state.computed(); }) -
         next;
}

int64_t Replay::RowsAt(const ComputedState& state) const {
  const int64_t computed = state.computed();
  int64_t end = std::max(end_, computed);
  // Where updates may wait, a step that passed the end of a chunk would apply all that do.
  if (chunk_ > 0 && max_lag_chunks_ > 0) end = std::min(end, (computed / chunk_ + 1) * chunk_);
  for (const UpdatePoint& update : updates_) {
    if (update.position > computed) return std::min(end, update.position) - computed;
  }
  return end - computed;
}

bool Replay::DoneAt(const ComputedState& state) const {
  return state.computed() >= end_ && UpdatesAt(state) == 0;
}

}  // namespace mneme
