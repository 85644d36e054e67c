#include "engine/session/session_table.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/error.h"

namespace mneme {
namespace {

std::string RandomId() {
  std::random_device random;  // the system's entropy: an id that cannot be guessed
  std::string id;
  for (int word = 0; word < 4; ++word) absl::StrAppend(&id, absl::Hex(random(), absl::kZeroPad8));
  return id;
}

}  // namespace

absl::StatusOr<Session*> SessionTable::Create(SessionKey key, SessionOptions options,
                                              absl::Time now) {
  if (key.id.empty()) key.id = RandomId();
  MNEME_RETURN_IF_ERROR(ValidateControls(options.controls));
  MNEME_RETURN_IF_ERROR(CheckNew(key));
  return Add(key, std::move(options), now);
}

absl::Status SessionTable::CheckNew(const SessionKey& key) const {
  if (!key.id.empty()) MNEME_RETURN_IF_ERROR(ValidateSessionId(key.id));
  if (sessions_.count(key) > 0) {
    return MakeError(absl::StatusCode::kAlreadyExists,
                     absl::StrCat("session ", key.id, " exists already"),
                     {.reason = ErrorReason::kSessionExists});
  }
  if (size() >= max_sessions_) {
    return MakeError(absl::StatusCode::kResourceExhausted,
                     absl::StrCat("there are ", size(), " sessions, as many as --max_sessions ",
                                  "allows; delete some"),
                     {.reason = ErrorReason::kOutOfMemory, .retryable = true});
  }
  return absl::OkStatus();
}

Session* SessionTable::Add(const SessionKey& key, SessionOptions options, absl::Time create_time) {
  auto session = std::make_unique<Session>(key, std::move(options), pools_, create_time);
  return sessions_.emplace(key, std::move(session)).first->second.get();
}

absl::StatusOr<Session*> SessionTable::Find(const SessionKey& key) const {
  const auto found = sessions_.find(key);
  if (found != sessions_.end()) return found->second.get();
  return MakeError(absl::StatusCode::kNotFound,
                   absl::StrCat("there is no session \"", key.id, "\"; create it first"),
                   {.reason = ErrorReason::kSessionNotFound});
}

std::vector<Session*> SessionTable::List(const std::string& tenant, const std::string& after,
                                         int limit) const {
  std::vector<Session*> sessions;
  for (auto entry = sessions_.upper_bound({tenant, after});
       entry != sessions_.end() && entry->first.tenant == tenant &&
       static_cast<int>(sessions.size()) < limit;
       ++entry) {
    sessions.push_back(entry->second.get());
  }
  return sessions;
}

std::vector<Session*> SessionTable::All() const {
  std::vector<Session*> sessions;
  for (const auto& [key, session] : sessions_) sessions.push_back(session.get());
  return sessions;
}

std::vector<Session*> SessionTable::Expired(absl::Time now) const {
  std::vector<Session*> expired;
  for (const auto& [key, session] : sessions_) {
    if (session->expiry() <= now) expired.push_back(session.get());
  }
  return expired;
}

absl::Time SessionTable::NextExpiry() const {
  absl::Time next = absl::InfiniteFuture();
  for (const auto& [key, session] : sessions_) next = std::min(next, session->expiry());
  return next;
}

int64_t SessionTable::host_bytes() const {
  int64_t bytes = 0;
  for (const auto& [key, session] : sessions_) bytes += session->host_bytes();
  return bytes;
}

}  // namespace mneme
