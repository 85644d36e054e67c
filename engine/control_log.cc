#include "engine/control_log.h"

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

}  // namespace mneme
