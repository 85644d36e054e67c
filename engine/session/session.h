#ifndef MNEME_ENGINE_SESSION_SESSION_H_
#define MNEME_ENGINE_SESSION_SESSION_H_

// A session: a log of tokens, the device state computed from it, and what is known of its requests.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "engine/request.h"
#include "engine/session/computed_state.h"
#include "engine/session/control_log.h"
#include "engine/session/replay.h"
#include "engine/session/request_records.h"

namespace mneme {

// What a session's log holds.
struct SessionLogs {
  std::vector<int32_t> tokens;
  ControlLog controls{LearningControls()};
  std::vector<UpdatePoint> updates;
  std::optional<int64_t> open_turn;
  RequestRecords records;
};

// Engine thread only.
class Session {
 public:
  Session(SessionKey key, SessionOptions options, CachePools& pools, absl::Time now);

  const SessionKey& key() const { return key_; }
  absl::Time create_time() const { return create_time_; }
  const std::map<std::string, std::string>& labels() const { return labels_; }
  const std::optional<absl::Duration>& ttl() const { return ttl_; }
  SessionInfo info() const;
  // Of the logs and the request records.
  int64_t host_bytes() const;

  // --- A session that lies on the disk. ---
  // Of a new object: its log, of which this is known, has yet to be loaded.
  void Park(uint32_t epoch, int64_t position);
  // The disk has all of the log: it and what is computed are given back, and lie there from now on.
  void Unload();
  // Takes the log of a parked session, which ends at its position. Its state is then to be computed
  // again; controls that were set since it was parked stay.
  void Load(SessionLogs logs);
  bool loaded() const { return !parked_position_; }
  // What a loaded session's log was when it ended at `position`, at most its own; without request
  // records.
  SessionLogs LogsAt(int64_t position) const;
  // Goes back to `logs`, of LogsAt, in a new epoch: requests that logged more are forgotten. What
  // is computed stays if it is of them; else it is given back and to be computed again.
  void RollBack(SessionLogs logs);
  // Whether what is computed is of the log up to `position`.
  bool ComputedWithin(int64_t position) const { return ready() && computed() <= position; }
  // What is to be computed again before anything else is; null: nothing.
  Replay* replay() { return replay_ ? &*replay_ : nullptr; }
  void EndReplay() { replay_.reset(); }
  // Whether requests can run on it.
  bool ready() const { return loaded() && !replay_; }
  // OK, or why no request ever can.
  const absl::Status& damage() const { return damage_; }
  void set_damage(const absl::Status& why) { damage_ = why; }

  // --- The log; empty unless loaded. ---
  const std::vector<int32_t>& log() const { return log_; }
  // Its length, also of one that is not loaded.
  int64_t position() const { return parked_position_.value_or(static_cast<int64_t>(log_.size())); }
  uint32_t epoch() const { return epoch_; }
  // epoch · 2³² + chunks closed by the log, computed yet or not.
  uint64_t version() const { return VersionAt(position()); }
  // What the version was when the log ended at `position`.
  uint64_t VersionAt(int64_t position) const;
  int64_t ChunksClosedAt(int64_t position) const { return chunk_ == 0 ? 0 : position / chunk_; }
  void Log(absl::Span<const int32_t> tokens);

  // --- The state computed from it. ---
  ComputedState& state() { return state_; }
  const ComputedState& state() const { return state_; }
  SessionCache& cache() { return state_.cache(); }
  // Tokens that are computed; at most one less than position, once the session is ready.
  int64_t computed() const { return state_.computed(); }
  absl::Span<const int32_t> uncomputed() const {
    return absl::MakeSpan(log_).subspan(static_cast<size_t>(computed()));
  }
  const HiddenRow& last_hidden() const { return state_.last_hidden(); }

  const ControlLog& controls() const { return controls_; }
  void Update(const SessionUpdate& update);

  // Where the assistant's turn that the log ends in has begun, if it ends in one.
  std::optional<int64_t> open_turn() const { return open_turn_; }
  void set_open_turn(std::optional<int64_t> position) { open_turn_ = position; }

  RequestRecords& records() { return records_; }
  const RequestRecords& records() const { return records_; }

  // Checkpoints that clients have named, and how long the log was then; a rollback forgets those
  // behind its position. Also of a session that is not loaded.
  const std::map<std::string, int64_t>& checkpoints() const { return checkpoints_; }
  std::vector<std::string> CheckpointNames() const;
  void set_checkpoints(std::map<std::string, int64_t> checkpoints) {
    checkpoints_ = std::move(checkpoints);
  }

  void Touch(absl::Time now) { last_used_time_ = now; }
  absl::Time last_used_time() const { return last_used_time_; }
  // When the session is deleted unless it is used before.
  absl::Time expiry() const;

 private:
  void Become(SessionLogs logs);

  const SessionKey key_;
  const int64_t chunk_;  // C; 0 without TTT
  uint32_t epoch_ = 0;
  std::optional<int64_t> parked_position_;  // not loaded
  std::optional<Replay> replay_;
  absl::Status damage_;
  std::vector<int32_t> log_;
  ControlLog controls_;
  std::optional<int64_t> open_turn_;
  RequestRecords records_;

  ComputedState state_;

  std::map<std::string, std::string> labels_;
  std::optional<absl::Duration> ttl_;
  std::map<std::string, int64_t> checkpoints_;
  const absl::Time create_time_;
  absl::Time last_used_time_;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_SESSION_SESSION_H_
