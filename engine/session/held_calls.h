#ifndef MNEME_ENGINE_SESSION_HELD_CALLS_H_
#define MNEME_ENGINE_SESSION_HELD_CALLS_H_

#include <cstdint>
#include <functional>
#include <list>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "engine/session/session.h"

namespace mneme {

// Calls that wait for their session to come back, in the order of their arrival. Engine thread
// only.
class HeldCalls {
 public:
  // What of its session a call waits for.
  enum class Until : uint8_t {
    kLog,     // its log is in memory
    kAtRest,  // and its state is not on its way between tiers
    kState,   // its state is computed, on whichever tier it is
  };
  // OK, or why its client waits no longer: CANCELLED, DEADLINE_EXCEEDED. Null: it waits.
  using GaveUp = std::function<absl::Status()>;
  // Told once: OK, and then what it has waited for is there; or why it never will be.
  using Then = std::function<void(const absl::Status&)>;

  struct Call {
    Session* session;
    Until until;
    GaveUp gave_up;
    Then then;
  };

  void Hold(Call call) { calls_.push_back(std::move(call)); }

  // Tells and drops, one by one, the calls for which `status_of` has a status. Telling one may
  // change what there is to say of the others, and may hold more.
  void EndWhere(const std::function<std::optional<absl::Status>(const Call&)>& status_of);
  void End(const Session& session, const absl::Status& status);

  bool Has(const Session& session) const;
  bool empty() const { return calls_.empty(); }
  const std::list<Call>& calls() const { return calls_; }

 private:
  std::list<Call> calls_;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_SESSION_HELD_CALLS_H_
