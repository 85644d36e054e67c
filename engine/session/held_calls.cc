#include "engine/session/held_calls.h"

#include <algorithm>
#include <utility>

namespace mneme {

void HeldCalls::EndWhere(const std::function<std::optional<absl::Status>(const Call&)>& status_of) {
  for (auto call = calls_.begin(); call != calls_.end();) {
    const std::optional<absl::Status> status = status_of(*call);
    if (!status) {
      ++call;
      continue;
    }
    const Then then = std::move(call->then);
    calls_.erase(call);
    then(*status);
    call = calls_.begin();
  }
}

void HeldCalls::End(const Session& session, const absl::Status& status) {
  EndWhere([&](const Call& call) {
    return call.session == &session ? std::optional<absl::Status>(status) : std::nullopt;
  });
}

bool HeldCalls::Has(const Session& session) const {
  return std::any_of(calls_.begin(), calls_.end(),
                     [&session](const Call& call) { return call.session == &session; });
}

}  // namespace mneme
