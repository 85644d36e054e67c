#ifndef MNEME_ENGINE_SESSION_UPDATE_LOG_H_
#define MNEME_ENGINE_SESSION_UPDATE_LOG_H_

#include <cstdint>
#include <optional>
#include <vector>

namespace mneme {

// The update of chunk `chunk` was applied after the tokens below `position` had been computed, and
// before the next.
struct UpdatePoint {
  int64_t chunk = 0;
  int64_t position = 0;

  friend bool operator==(const UpdatePoint& a, const UpdatePoint& b) = default;
};

// Where a session's deferred updates were applied: what its state is a function of beside tokens
// and controls (DESIGN §2). Chunks that closed in exact mode or frozen need no entry: theirs is
// where they closed, or nowhere.
class UpdateLog {
 public:
  // Chunks come in their order.
  void Add(UpdatePoint point);
  const std::vector<UpdatePoint>& points() const { return points_; }
  // Where the update of `chunk` was applied; nothing if that is not logged.
  std::optional<int64_t> PositionOf(int64_t chunk) const;
  int64_t size_bytes() const;

 private:
  std::vector<UpdatePoint> points_;  // chunks strictly ascending, positions ascending
};

}  // namespace mneme

#endif  // MNEME_ENGINE_SESSION_UPDATE_LOG_H_
