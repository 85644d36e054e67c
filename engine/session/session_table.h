#ifndef MNEME_ENGINE_SESSION_SESSION_TABLE_H_
#define MNEME_ENGINE_SESSION_SESSION_TABLE_H_

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/session/session.h"

namespace mneme {

// All sessions, by (tenant, id). Engine thread only.
class SessionTable {
 public:
  // `pools` must outlive the table.
  SessionTable(CachePools& pools, int64_t max_sessions)
      : pools_(pools), max_sessions_(max_sessions) {}

  // An empty key.id is replaced by 128 random bits in hexadecimal. ALREADY_EXISTS,
  // INVALID_ARGUMENT, RESOURCE_EXHAUSTED. The table owns the session.
  absl::StatusOr<Session*> Create(SessionKey key, SessionOptions options, absl::Time now);
  // Why none can be created of this key; an empty id may be. The same statuses.
  absl::Status CheckNew(const SessionKey& key) const;
  // A session that is there already, whatever max_sessions says; its key is not in the table yet.
  Session* Add(const SessionKey& key, SessionOptions options, absl::Time create_time);
  // NOT_FOUND: an unknown session is never created silently.
  absl::StatusOr<Session*> Find(const SessionKey& key) const;
  // Hands over the session, which must be there.
  std::unique_ptr<Session> Remove(const SessionKey& key) {
    return std::move(sessions_.extract(key).mapped());
  }

  // The tenant's sessions with ids greater than `after`, at most `limit`, by id.
  std::vector<Session*> List(const std::string& tenant, const std::string& after, int limit) const;
  std::vector<Session*> All() const;
  // Those whose time to live has passed.
  std::vector<Session*> Expired(absl::Time now) const;
  absl::Time NextExpiry() const;

  int64_t size() const { return static_cast<int64_t>(sessions_.size()); }
  // Of logs and request records.
  int64_t host_bytes() const;

 private:
  CachePools& pools_;
  const int64_t max_sessions_;
  std::map<SessionKey, std::unique_ptr<Session>> sessions_;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_SESSION_SESSION_TABLE_H_
