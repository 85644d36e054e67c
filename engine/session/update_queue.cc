#include "engine/session/update_queue.h"

namespace mneme {

void UpdateQueue::Note(Session& session) {
  if (session.state().waiting_updates() == 0) return Forget(session);
  const auto [known, is_new] = turn_of_.try_emplace(&session, turns_ + 1);
  if (is_new) by_turn_.emplace(++turns_, &session);
}

void UpdateQueue::Forget(Session& session) {
  const auto known = turn_of_.find(&session);
  if (known == turn_of_.end()) return;
  by_turn_.erase(known->second);
  turn_of_.erase(known);
}

std::vector<Session*> UpdateQueue::First(int64_t limit) const {
  std::vector<Session*> sessions;
  for (const auto& [turn, session] : by_turn_) {
    if (static_cast<int64_t>(sessions.size()) == limit) break;
    sessions.push_back(session);
  }
  return sessions;
}

int64_t UpdateQueue::waiting_chunks() const {
  int64_t chunks = 0;
  for (const auto& [turn, session] : by_turn_) chunks += session->state().waiting_updates();
  return chunks;
}

}  // namespace mneme
