#include "engine/update_log.h"

#include <algorithm>

#include "base/check.h"

namespace mneme {

void UpdateLog::Add(UpdatePoint point) {
  if (points_.empty() || points_.back().position < point.position) {
    points_.push_back(point);
    return;
  }
  MNEME_CHECK(points_.back().position == point.position && points_.back().chunks <= point.chunks);
  points_.back().chunks = point.chunks;
}

int64_t UpdateLog::ChunksAt(int64_t position) const {
  const auto later =
      std::upper_bound(points_.begin(), points_.end(), position,
                       [](int64_t p, const UpdatePoint& point) { return p < point.position; });
  return later == points_.begin() ? 0 : std::prev(later)->chunks;
}

int64_t UpdateLog::size_bytes() const {
  return static_cast<int64_t>(points_.capacity() * sizeof(UpdatePoint));
}

}  // namespace mneme
