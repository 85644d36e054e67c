#ifndef MNEME_STORAGE_SESSION_STATE_H_
#define MNEME_STORAGE_SESSION_STATE_H_

// What is kept of a session, as plain values: its state is what its logged events add up to.

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

namespace mneme {

// Learning controls as they govern from a position on; the engine knows what the values mean.
struct StoredControls {
  int64_t max_lag_chunks = 0;  // 0: exact mode
  float clip_norm = 0, decay = 0, lr_scale = 1, max_relative_norm = 0;
  bool freeze = false;

  friend bool operator==(const StoredControls&, const StoredControls&) = default;
};

// What changes seldom. Written whole.
struct SessionMetadata {
  std::string tenant, id;
  std::map<std::string, std::string> labels;
  std::optional<absl::Duration> ttl;
  absl::Time create_time;
  // What gives the log's numbers their meaning, as the engine sees it (vocabulary, chunk size).
  uint64_t log_meaning = 0;
  StoredControls controls;  // the last ones of the log, for listings
  // Checkpoints that a client has named, and how long the log was then.
  std::map<std::string, int64_t> checkpoints;

  friend bool operator==(const SessionMetadata&, const SessionMetadata&) = default;
};

struct StoredTokenLogProb {
  int32_t id = 0;
  float logprob = 0;

  friend bool operator==(const StoredTokenLogProb&, const StoredTokenLogProb&) = default;
};

struct StoredLogProbs {
  float logprob = 0;
  std::vector<StoredTokenLogProb> top;

  friend bool operator==(const StoredLogProbs&, const StoredLogProbs&) = default;
};

// How a generation ended.
struct StoredFinish {
  uint8_t reason = 0;
  std::string matched_stop;
  uint64_t prompt_tokens = 0, completion_tokens = 0, chunks_closed = 0, position = 0, version = 0;

  friend bool operator==(const StoredFinish&, const StoredFinish&) = default;
};

// What a retry is recognised by, and answered with.
struct StoredRequest {
  std::string id;
  uint8_t kind = 0;  // 0: append, 1: generate
  uint64_t payload_hash = 0;
  int64_t begin_position = 0;
  uint64_t begin_version = 0;
  std::optional<int64_t> begin_open_turn;
  int64_t input_tokens = 0;
  uint64_t seed = 0;
  // What grows while it runs.
  int64_t end_position = 0;
  std::vector<float> append_logprobs;
  std::vector<StoredLogProbs> generated_logprobs;
  std::optional<StoredFinish> finish;
  bool complete = false;

  friend bool operator==(const StoredRequest&, const StoredRequest&) = default;
};

// --- Events, in the order in which they happened. ---

struct TokensLogged {
  std::vector<int32_t> tokens;
};
// Governs chunks whose last index is ≥ position, which is at most the log's length.
struct ControlsSet {
  int64_t position = 0;
  StoredControls controls;
};
// Deferred mode: the update of chunk `chunk` was applied in front of the token at `position`.
struct UpdateApplied {
  int64_t chunk = 0;
  int64_t position = 0;
};
struct OpenTurnSet {
  std::optional<int64_t> open_turn;
};
// A record as it stands; replaces that of the same id.
struct RequestRecorded {
  StoredRequest request;
};
// What has come to the record `id` since.
struct RequestAdvanced {
  std::string id;
  int64_t end_position = 0;
  std::vector<float> append_logprobs;
  std::vector<StoredLogProbs> generated_logprobs;
  std::optional<StoredFinish> finish;
  bool complete = false;
};
// The log ends at `position` again; what lies behind is forgotten: tokens, controls, updates, and
// requests that logged any of it.
struct RolledBack {
  int64_t position = 0;
  uint32_t epoch = 0;
};

using SessionEvent = std::variant<TokensLogged, ControlsSet, UpdateApplied, OpenTurnSet,
                                  RequestRecorded, RequestAdvanced, RolledBack>;

struct SessionState {
  static constexpr size_t kMaxRequests = 1024;

  uint32_t epoch = 0;
  std::vector<int32_t> tokens;
  std::vector<ControlsSet> controls;   // positions ascending
  std::vector<UpdateApplied> updates;  // positions ascending
  std::optional<int64_t> open_turn;
  std::deque<StoredRequest> requests;  // the last kMaxRequests, oldest first

  int64_t position() const { return static_cast<int64_t>(tokens.size()); }
  // DATA_LOSS for an event that cannot have happened in this state, which is then half changed.
  absl::Status Apply(SessionEvent event);
  // Events that make this state from an empty one.
  std::vector<SessionEvent> ToEvents() const;
};

// Of what determines a computed state besides the model and the controls: the tokens before its
// position and the updates that are logged as applied to it.
uint64_t LogHash(absl::Span<const int32_t> tokens, absl::Span<const UpdateApplied> updates);
// Of the controls that govern any chunk which has closed at `position`.
uint64_t ControlsFingerprint(absl::Span<const ControlsSet> controls, int64_t position);

}  // namespace mneme

#endif  // MNEME_STORAGE_SESSION_STATE_H_
