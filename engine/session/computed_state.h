#ifndef MNEME_ENGINE_SESSION_COMPUTED_STATE_H_
#define MNEME_ENGINE_SESSION_COMPUTED_STATE_H_

// The state computed from a session's log, and how steps advance it.

#include <cstdint>
#include <vector>

#include "engine/session/sequence_step.h"
#include "engine/session/session_cache.h"
#include "engine/session/update_log.h"

namespace mneme {

// What a computed state is, but for the content of its blocks on the device.
struct StateShape {
  struct Waiting {
    int64_t chunk = 0;
    LearningControls controls;

    friend bool operator==(const Waiting&, const Waiting&) = default;
  };

  int64_t computed = 0;  // tokens
  HiddenRow last_hidden;
  UpdateLog update_log;
  std::vector<Waiting> waiting;  // updates, in their order
  CacheShape cache;
};

// A chunk that a step ends with is not learnt in that step: its rows wait in their block until the
// update is applied before rows of a later step, or in a step of its own when there is nothing else
// to do. How long it may wait is fixed by the controls at its last token: until the session's next
// token in exact mode; deferred, until `max_lag_chunks` chunks that closed wait already. Chunks
// that end inside a step are learnt there. Engine thread only.
class ComputedState {
 public:
  explicit ComputedState(CachePools& pools) : chunk_(pools.chunk()), cache_(pools) {}

  // Tokens whose keys, values and rows are in the cache.
  int64_t computed() const { return computed_; }
  // Of the last of them; empty before the first.
  const HiddenRow& last_hidden() const { return last_hidden_; }
  SessionCache& cache() { return cache_; }
  const SessionCache& cache() const { return cache_; }

  // Closed chunks that are still to be learnt.
  int64_t waiting_updates() const { return static_cast<int64_t>(waiting_.size()); }
  // Of them, those that must be learnt before `rows` more rows are computed in one step.
  int64_t UpdatesDue(int64_t rows, bool provisional) const;
  const UpdateLog& update_log() const { return update_log_; }

  // Completes `step`, which has its controls and its rows, if any: gives it those of the waiting
  // updates that are due, and the first `updates` in any case, and takes what its rows need from
  // the cache's reservation (SessionCache::PeakBlocks). If memory for the rows of one more chunk is
  // not reserved, an update is applied earlier than it must be. The step must then be run, and no
  // other of the session before it; where the updates are applied is logged already.
  void Prepare(SequenceStep& step, int64_t updates = 0);
  // What can be restored from. Between steps, and without provisional pages.
  StateShape shape() const;
  // Becomes a state of this shape, its blocks having unspecified content; false, and nothing
  // changed, if memory for them cannot be had. The cache must hold nothing.
  bool Restore(const StateShape& shape);
  // Becomes equal to `other` between steps, sharing all blocks with it until one of them is
  // written; false, and nothing changed, if memory for copies cannot be had. The cache must hold
  // nothing.
  bool ShareWith(const ComputedState& other);

  // Nothing is computed, and nothing held.
  void Reset();

  // The step was run: its rows, unless they are provisional, are part of the state.
  void Commit(SequenceStep& step);

 private:
  // Index of the first token before which the update must be applied.
  int64_t Deadline(const WaitingUpdate& update) const {
    return (update.chunk + 1 + update.controls.max_lag_chunks) * chunk_;
  }
  void TakeUpdates(int64_t count, SequenceStep& step);
  void LogChunksInside(const SequenceStep& step);
  void CloseChunk(const LearningControls& controls);
  void Become(const StateShape& shape);

  const int64_t chunk_;  // C; 0 without TTT
  int64_t computed_ = 0;
  HiddenRow last_hidden_;
  std::vector<WaitingUpdate> waiting_;
  UpdateLog update_log_;
  SessionCache cache_;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_SESSION_COMPUTED_STATE_H_
