#ifndef MNEME_ENGINE_SESSION_UPDATE_QUEUE_H_
#define MNEME_ENGINE_SESSION_UPDATE_QUEUE_H_

#include <cstdint>
#include <map>
#include <unordered_map>
#include <vector>

#include "engine/session/session.h"

namespace mneme {

// The sessions whose closed chunks are still to be learnt, in the order in which they began to
// wait. Engine thread only.
class UpdateQueue {
 public:
  // A step of the session is done, or prepared: it joins or leaves the queue as its state says.
  void Note(Session& session);
  // The session is about to go.
  void Forget(Session& session);

  // At most `limit`, the longest waiting first.
  std::vector<Session*> First(int64_t limit) const;
  // Of all sessions in the queue.
  int64_t waiting_chunks() const;
  bool empty() const { return by_turn_.empty(); }

 private:
  uint64_t turns_ = 0;
  std::map<uint64_t, Session*> by_turn_;
  std::unordered_map<const Session*, uint64_t> turn_of_;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_SESSION_UPDATE_QUEUE_H_
