#include "engine/session/control_log.h"

#include <algorithm>

namespace mneme {

void ControlLog::Set(int64_t position, const LearningControls& controls) {
  if (entries_.back().first == position) entries_.pop_back();
  entries_.emplace_back(position, controls);
}

const LearningControls& ControlLog::At(int64_t last_index) const {
  auto entry = entries_.rbegin();
  while (entry->first > last_index && std::next(entry) != entries_.rend()) ++entry;
  return entry->second;
}

ControlLog ControlLog::Until(int64_t position) const {
  ControlLog earlier = *this;
  std::erase_if(earlier.entries_, [position](const auto& entry) { return entry.first > position; });
  return earlier;
}

int64_t ControlLog::max_lag_chunks() const {
  int64_t chunks = 0;
  for (const auto& [position, controls] : entries_) {
    chunks = std::max(chunks, controls.max_lag_chunks);
  }
  return chunks;
}

}  // namespace mneme
