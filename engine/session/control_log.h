#ifndef MNEME_ENGINE_SESSION_CONTROL_LOG_H_
#define MNEME_ENGINE_SESSION_CONTROL_LOG_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "engine/request.h"

namespace mneme {

// Learning controls with the positions at which they were set. A control logged at position q
// governs the chunks whose last token has index ≥ q (DESIGN §1).
class ControlLog {
 public:
  explicit ControlLog(const LearningControls& initial) : entries_{{0, initial}} {}

  void Set(int64_t position, const LearningControls& controls);
  // What governs the chunk whose last token has index `last_index`.
  const LearningControls& At(int64_t last_index) const;
  const LearningControls& latest() const { return entries_.back().second; }
  // Positions ascending; the first is 0.
  const std::vector<std::pair<int64_t, LearningControls>>& entries() const { return entries_; }
  // Those that were set at `position` or before.
  ControlLog Until(int64_t position) const;
  // The most that any of them lets wait.
  int64_t max_lag_chunks() const;

 private:
  std::vector<std::pair<int64_t, LearningControls>> entries_;  // positions ascending
};

}  // namespace mneme

#endif  // MNEME_ENGINE_SESSION_CONTROL_LOG_H_
