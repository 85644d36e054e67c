#ifndef MNEME_ENGINE_REQUEST_H_
#define MNEME_ENGINE_REQUEST_H_

// What the engine is asked to do and what it answers: plain values, free of any wire format.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kernels/sampling.h"

namespace mneme {

// Sessions of different tenants never meet, whatever their ids.
struct SessionKey {
  std::string tenant;
  std::string id;

  friend bool operator<(const SessionKey& a, const SessionKey& b) {
    return std::tie(a.tenant, a.id) < std::tie(b.tenant, b.id);
  }
  friend bool operator==(const SessionKey& a, const SessionKey& b) {
    return std::tie(a.tenant, a.id) == std::tie(b.tenant, b.id);
  }
};

// INVALID_ARGUMENT unless `id` is 1 to 128 of A-Z a-z 0-9 . _ : -
absl::Status ValidateSessionId(const std::string& id);
// The same of a tenant's name, and of a checkpoint's.
absl::Status ValidateTenant(const std::string& name);
absl::Status ValidateCheckpointName(const std::string& name);

// Checkpoints of a session that clients may name, at most.
inline constexpr size_t kMaxNamedCheckpoints = 16;

// Where in a session's history: its end, behind so many tokens, or where it was when the checkpoint
// of this name was taken.
using HistoryPoint = std::variant<std::monostate, int64_t, std::string>;

// Of a request's id, at most.
inline constexpr size_t kMaxRequestIdBytes = 128;

// Chunks that may wait for their update, at most.
inline constexpr int64_t kMaxLagChunks = 64;

// How a session learns (DESIGN §1, "learning controls", and §7); the defaults change nothing.
struct LearningControls {
  // Deferred mode: how many closed chunks may wait for their update while tokens are computed.
  // 0: exact mode, in which an update is applied before any later token.
  int64_t max_lag_chunks = 0;
  float clip_norm = 0;          // τ; 0: off
  float decay = 0;              // [0, 1)
  float lr_scale = 1;           // ≥ 0
  float max_relative_norm = 0;  // 0: off
  bool freeze = false;

  friend bool operator==(const LearningControls& a, const LearningControls& b) = default;
};

// INVALID_ARGUMENT, naming the field, for what is negative, not finite or out of range.
absl::Status ValidateControls(const LearningControls& controls);

struct SessionOptions {
  LearningControls controls;
  std::map<std::string, std::string> labels;
  std::optional<absl::Duration> ttl;  // since last use; then the session is deleted
};

// Absent fields stay as they are.
struct ControlsUpdate {
  std::optional<int64_t> max_lag_chunks;
  std::optional<float> clip_norm;
  std::optional<float> decay;
  std::optional<float> lr_scale;
  std::optional<float> max_relative_norm;
  std::optional<bool> freeze;

  // Replaces every control.
  static ControlsUpdate All(const LearningControls& controls);
  bool empty() const {
    return !max_lag_chunks && !clip_norm && !decay && !lr_scale && !max_relative_norm && !freeze;
  }
  LearningControls AppliedTo(const LearningControls& controls) const;
};

// Absent fields stay as they are.
struct SessionUpdate {
  ControlsUpdate controls;
  std::optional<std::map<std::string, std::string>> labels;
  std::optional<std::optional<absl::Duration>> ttl;  // inner absent: none any more
};

// Where a session is.
enum class Residence : uint8_t {
  kDevice,     // a request can run at once
  kRestoring,  // its state is being brought back, or computed again
  kHost,       // its state is in the host's memory, or will be computed from its log there
  kDisk,       // what it is made of when it is used lies on the disk
};

struct SessionInfo {
  SessionKey key;
  Residence residence = Residence::kDevice;
  uint64_t position = 0;
  uint64_t version = 0;
  int64_t device_bytes = 0;  // KV pages, fast weights, rows of chunks that are not learnt yet
  int64_t host_bytes = 0;    // token log, request records, and the image of its state
  int64_t disk_bytes = 0;    // checkpoints
  SessionOptions options;
  absl::Time create_time;
  absl::Time last_used_time;
  std::map<std::string, int64_t> checkpoints;  // that clients have named, and their positions
};

// What a checkpoint that was asked for holds.
struct CheckpointSummary {
  uint64_t position = 0;  // tokens computed; one that was drawn last may not be
  uint64_t version = 0;
  int64_t bytes = 0;
  uint64_t session_position = 0;  // where the session was: what the checkpoint's name stands for
};

// Token ids as they come from a client, with what is needed to join them to the log.
struct InputPiece {
  std::vector<int32_t> ids;
  // Put before `ids` if the session is empty: BOS, for text.
  std::optional<int32_t> bos;
  // Put before `ids` if the session's log ends in an open assistant turn, less what of it the log
  // already ends with: the turn's suffix.
  std::vector<int32_t> turn_end;
  // `ids` end with the assistant's prefix: afterwards an assistant turn is open.
  bool opens_turn = false;
};

enum class RequestKind : uint8_t { kAppend, kGenerate };

// How a tenant's requests share what is the tenant's; see FlowWeight.
enum class Priority : uint8_t { kHigh, kNormal, kLow };

// What every request on a session has.
struct RequestHeader {
  SessionKey session;      // Generate: an empty id is a throw-away session
  std::string request_id;  // empty: not idempotent, cannot be cancelled by name
  std::optional<uint64_t> expected_position;
  std::optional<uint64_t> expected_version;
  absl::Time deadline = absl::InfiniteFuture();
  Priority priority = Priority::kNormal;
};

// Its input comes through the request's channel.
struct AppendRequest {
  RequestHeader header;
  bool return_logprobs = false;
};

struct GenerateRequest {
  RequestHeader header;
  InputPiece input;  // may be empty: go on from the log
  SamplingParams sampling;
  bool seed_given = false;  // else the engine draws sampling.seed
  std::optional<int64_t>
      max_tokens;          // absent: EngineOptions::default_max_tokens, cut to the context
  int64_t min_tokens = 0;  // no stop of any kind before so many
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
  std::optional<int> logprobs;  // present: the sampled token's, and so many alternatives
  bool learn = true;            // false: leaves no trace in the session
};

// A piece of an Append was computed and logged.
struct AppendProgress {
  uint64_t position = 0;
  uint64_t version = 0;
  uint64_t chunks_closed = 0;    // by the session, since its first token
  double tokens_per_second = 0;  // of this request so far
  std::vector<float> logprobs;   // one for each appended token of the piece, if asked for
};

struct GeneratedToken {
  int32_t id = 0;
  std::string text;  // may lag behind the token; empty for stop tokens
  std::optional<float> logprob;
  std::vector<TokenLogProb> top_logprobs;
};

enum class FinishReason : uint8_t { kStop, kLength };

struct Finished {
  FinishReason reason = FinishReason::kLength;
  std::string matched_stop;  // the stop string, if one ended the text
  uint64_t prompt_tokens = 0;
  uint64_t completion_tokens = 0;
  uint64_t chunks_closed = 0;  // by this request
  uint64_t position = 0;
  uint64_t version = 0;
};

// The last event of every request. Anything but OK carries an ErrorInfo.
struct RequestEnd {
  absl::Status status;
};

// What a request's client sees, in this order: for Append progresses; for Generate tokens and, only
// before an OK end, one Finished; then exactly one RequestEnd.
using RequestEvent = std::variant<AppendProgress, GeneratedToken, Finished, RequestEnd>;

}  // namespace mneme

#endif  // MNEME_ENGINE_REQUEST_H_
