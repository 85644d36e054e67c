#ifndef MNEME_ENGINE_DURABILITY_OUTBOX_H_
#define MNEME_ENGINE_DURABILITY_OUTBOX_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "engine/channel.h"

namespace mneme {

// What is told when a commit is complete: with OK, or why it never will be.
using Tell = std::function<void(const absl::Status&)>;

// Tells `channel` of `event`; if the commit fails, of its end alone, with that status.
Tell TellEvent(std::shared_ptr<RequestChannel> channel, RequestEvent event);

// What must not be said before the log has it, by the number of the commit that it waits for.
// Engine thread only.
class Outbox {
 public:
  void Hold(uint64_t number, Tell tell);
  // Tells all that waits for `number` or one before it, in order.
  void Release(uint64_t number, const absl::Status& status);
  int64_t size() const { return size_; }

 private:
  std::map<uint64_t, std::vector<Tell>> waiting_;
  int64_t size_ = 0;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_DURABILITY_OUTBOX_H_
