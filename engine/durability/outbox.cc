#include "engine/durability/outbox.h"

#include <utility>
#include <variant>

namespace mneme {

Tell TellEvent(std::shared_ptr<RequestChannel> channel, RequestEvent event) {
  return [channel = std::move(channel), event = std::move(event)](const absl::Status& status) {
    if (status.ok()) {
      channel->PushEvent(event);
    } else if (std::holds_alternative<RequestEnd>(event)) {
      channel->PushEvent(RequestEnd{status});
    }
  };
}

void Outbox::Hold(uint64_t number, Tell tell) {
  waiting_[number].push_back(std::move(tell));
  ++size_;
}

void Outbox::Release(uint64_t number, const absl::Status& status) {
  while (!waiting_.empty() && waiting_.begin()->first <= number) {
    const std::vector<Tell> tells = std::move(waiting_.begin()->second);
    waiting_.erase(waiting_.begin());
    size_ -= static_cast<int64_t>(tells.size());
    for (const Tell& tell : tells) tell(status);
  }
}

}  // namespace mneme
