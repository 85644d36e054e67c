#ifndef MNEME_ENGINE_UPDATE_LOG_H_
#define MNEME_ENGINE_UPDATE_LOG_H_

#include <cstdint>
#include <vector>

namespace mneme {

// Before the token at `position` was computed, the updates of all chunks below `chunks` had been
// applied.
struct UpdatePoint {
  int64_t position = 0;
  int64_t chunks = 0;

  friend bool operator==(const UpdatePoint& a, const UpdatePoint& b) = default;
};

// Where a session's deferred updates were applied: what its state is a function of beside tokens
// and controls (DESIGN §2). Chunks that closed in exact mode need no entry: their updates are
// applied where they close.
class UpdateLog {
 public:
  // Neither number is less than that of the point before.
  void Add(UpdatePoint point);
  const std::vector<UpdatePoint>& points() const { return points_; }
  // The chunks below this had been learnt, as far as they are logged here, when the token at
  // `position` was computed.
  int64_t ChunksAt(int64_t position) const;
  int64_t size_bytes() const;

 private:
  std::vector<UpdatePoint> points_;  // positions strictly ascending
};

}  // namespace mneme

#endif  // MNEME_ENGINE_UPDATE_LOG_H_
