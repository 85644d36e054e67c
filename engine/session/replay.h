#ifndef MNEME_ENGINE_SESSION_REPLAY_H_
#define MNEME_ENGINE_SESSION_REPLAY_H_

#include <cstdint>
#include <vector>

#include "engine/session/computed_state.h"
#include "engine/session/update_log.h"

namespace mneme {

// How a state is computed again from its log: which tokens go into which step, so that each
// deferred update is applied where the log says. It goes on from wherever the state stands, be that
// the beginning or what was kept of it elsewhere. Engine thread only.
class Replay {
 public:
  // Of a log of `position` tokens, in which `updates` were applied; no controls in it let more than
  // `max_lag_chunks` chunks wait. `chunk`: C; 0 without TTT.
  Replay(int64_t position, std::vector<UpdatePoint> updates, int64_t max_lag_chunks, int64_t chunk);

  // The logged updates that come before the state's next token. Its own log of updates holds those
  // that it was computed with.
  int64_t UpdatesAt(const ComputedState& state) const;
  // How many tokens its next step may compute.
  int64_t RowsAt(const ComputedState& state) const;
  // Whether the state is that of the log. Its last token may be left: whoever comes next computes
  // it (DESIGN §2.5), unless an update was applied behind it.
  bool DoneAt(const ComputedState& state) const;
  int64_t max_lag_chunks() const { return max_lag_chunks_; }
  const std::vector<UpdatePoint>& updates() const { return updates_; }

 private:
  int64_t end_;  // tokens below are computed again
  std::vector<UpdatePoint> updates_;
  int64_t max_lag_chunks_;
  int64_t chunk_;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_SESSION_REPLAY_H_
