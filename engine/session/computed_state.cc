#include "engine/session/computed_state.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace mneme {
namespace {

// The first end of a chunk behind `position`.
int64_t NextChunkEnd(int64_t position, int64_t chunk) { return (position / chunk + 1) * chunk; }

// Whether any chunk that closes in `step` is to be learnt.
bool Learns(const SequenceStep& step, int64_t chunk) {
  for (int64_t end = NextChunkEnd(step.first_position, chunk); end <= step.end_position();
       end += chunk) {
    if (!step.controls->At(end - 1).freeze) return true;
  }
  return false;
}

// Whether rows of the last chunk of `step` are wanted after it.
bool LeavesRows(const SequenceStep& step, int64_t chunk) {
  const int64_t end = step.end_position();
  return end % chunk != 0 || !step.controls->At(end - 1).freeze;
}

}  // namespace

int64_t ComputedState::UpdatesDue(int64_t rows, bool provisional) const {
  if (rows == 0 || waiting_.empty()) return 0;
  const bool passes_chunk_end = !provisional && computed_ + rows > NextChunkEnd(computed_, chunk_);
  if (passes_chunk_end) return waiting_updates();  // the chunk inside is learnt, after these
  const auto due = [this](const WaitingUpdate& update) { return Deadline(update) <= computed_; };
  return std::find_if(waiting_.rbegin(), waiting_.rend(), due).base() - waiting_.begin();
}

void ComputedState::Prepare(SequenceStep& step, int64_t updates) {
  step.cache = &cache_;
  if (!step.tokens.empty()) {
    cache_.ExtendPages(step.end_position());
    cache_.OwnPages(step.first_position, &step.row_copies);
  }
  if (chunk_ == 0) return;
  const bool learns_rows = !step.provisional && !step.tokens.empty();
  const bool needs_block = learns_rows && !cache_.has_open_rows() && LeavesRows(step, chunk_);
  updates = std::max(updates, UpdatesDue(step.row_count(), step.provisional));
  if (needs_block && !cache_.can_take_open_rows()) updates = std::max<int64_t>(updates, 1);
  TakeUpdates(updates, step);
  if (needs_block) cache_.TakeOpenRows();
  if (learns_rows) cache_.OwnOpenRows(&step.row_copies);
  const bool learns = learns_rows && Learns(step, chunk_);
  if (learns && !cache_.has_deltas()) cache_.TakeDeltas();
  if (learns || !step.updates.empty()) cache_.OwnDeltas(&step.delta_copies);
}

StateShape ComputedState::shape() const {
  StateShape shape = {.computed = computed_,
                      .last_hidden = last_hidden_,
                      .update_log = update_log_,
                      .cache = cache_.shape()};
  for (const WaitingUpdate& update : waiting_) {
    shape.waiting.push_back({update.chunk, update.controls});
  }
  return shape;
}

bool ComputedState::Restore(const StateShape& shape) {
  if (!cache_.TakeAll(shape.cache)) return false;
  Become(shape);
  return true;
}

bool ComputedState::ShareWith(const ComputedState& other) {
  if (!cache_.ShareAll(other.cache_)) return false;
  Become(other.shape());
  return true;
}

void ComputedState::Reset() {
  cache_.GiveAll();
  computed_ = 0;
  last_hidden_ = HiddenRow();
  waiting_.clear();
  update_log_ = UpdateLog();
}

void ComputedState::Become(const StateShape& shape) {
  computed_ = shape.computed;
  last_hidden_ = shape.last_hidden;
  update_log_ = shape.update_log;
  waiting_.clear();
  for (size_t i = 0; i < shape.waiting.size(); ++i) {
    const StateShape::Waiting& update = shape.waiting[i];
    waiting_.push_back({update.chunk, cache_.waiting_rows(i), update.controls});
  }
}

void ComputedState::TakeUpdates(int64_t count, SequenceStep& step) {
  MNEME_CHECK(count <= waiting_updates());
  if (count == 0) return;
  const auto end = waiting_.begin() + count;
  step.updates.assign(waiting_.begin(), end);
  waiting_.erase(waiting_.begin(), end);
  // Whoever takes the blocks next writes to them behind the step's updates.
  cache_.GiveWaitingRows(count);
  for (const WaitingUpdate& update : step.updates) {
    if (update.controls.max_lag_chunks > 0) update_log_.Add({update.chunk, computed_});
  }
}

void ComputedState::Commit(SequenceStep& step) {
  if (step.provisional || step.tokens.empty()) return;
  computed_ = step.end_position();
  last_hidden_ = std::move(step.hidden);
  cache_.RecyclePages(computed_);
  if (chunk_ == 0) return;
  LogChunksInside(step);
  if (computed_ % chunk_ == 0) CloseChunk(step.controls->At(computed_ - 1));
}

void ComputedState::LogChunksInside(const SequenceStep& step) {
  for (int64_t end = NextChunkEnd(step.first_position, chunk_); end < step.end_position();
       end += chunk_) {
    const LearningControls& controls = step.controls->At(end - 1);
    if (controls.max_lag_chunks > 0 && !controls.freeze) update_log_.Add({end / chunk_ - 1, end});
  }
}

void ComputedState::CloseChunk(const LearningControls& controls) {
  if (controls.freeze) {
    if (cache_.has_open_rows()) cache_.GiveOpenRows();
    return;
  }
  waiting_.push_back({computed_ / chunk_ - 1, cache_.KeepOpenRowsWaiting(), controls});
}

}  // namespace mneme
