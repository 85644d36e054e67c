#include "engine/session/update_log.h"

#include <algorithm>

#include "base/check.h"

namespace mneme {

void UpdateLog::Add(UpdatePoint point) {
  MNEME_CHECK(points_.empty() ||
              (points_.back().chunk < point.chunk && points_.back().position <= point.position));
  points_.push_back(point);
}

std::optional<int64_t> UpdateLog::PositionOf(int64_t chunk) const {
  const auto found =
      std::lower_bound(points_.begin(), points_.end(), chunk,
                       [](const UpdatePoint& point, int64_t c) { return point.chunk < c; });
  if (found == points_.end() || found->chunk != chunk) return std::nullopt;
  return found->position;
}

int64_t UpdateLog::size_bytes() const {
  return static_cast<int64_t>(points_.capacity() * sizeof(UpdatePoint));
}

}  // namespace mneme
