#include "engine/durability/stored_session.h"

#include <xxhash.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/error.h"
#include "engine/sampling/stop_matcher.h"

namespace mneme {
namespace {

template <typename... T>
absl::Status Broken(const T&... what) {
  return MakeError(absl::StatusCode::kDataLoss,
                   absl::StrCat("the session's log is broken: ", what...),
                   {.reason = ErrorReason::kDataLoss});
}

std::vector<StoredLogProbs> ToStored(absl::Span<const RecordedLogProbs> all) {
  std::vector<StoredLogProbs> stored;
  for (const RecordedLogProbs& probs : all) {
    StoredLogProbs& entry = stored.emplace_back(StoredLogProbs{.logprob = probs.logprob});
    for (const TokenLogProb& top : probs.top) entry.top.push_back({top.id, top.logprob});
  }
  return stored;
}

std::vector<RecordedLogProbs> FromStored(const std::vector<StoredLogProbs>& stored) {
  std::vector<RecordedLogProbs> all;
  for (const StoredLogProbs& entry : stored) {
    RecordedLogProbs& probs = all.emplace_back(RecordedLogProbs{.logprob = entry.logprob});
    for (const StoredTokenLogProb& top : entry.top) probs.top.push_back({top.id, top.logprob});
  }
  return all;
}

std::optional<StoredFinish> ToStored(const std::optional<Finished>& finished) {
  if (!finished) return std::nullopt;
  return StoredFinish{.reason = static_cast<uint8_t>(finished->reason),
                      .matched_stop = finished->matched_stop,
                      .prompt_tokens = finished->prompt_tokens,
                      .completion_tokens = finished->completion_tokens,
                      .chunks_closed = finished->chunks_closed,
                      .position = finished->position,
                      .version = finished->version};
}

std::optional<Finished> FromStored(const std::optional<StoredFinish>& stored) {
  if (!stored) return std::nullopt;
  return Finished{.reason = static_cast<FinishReason>(stored->reason),
                  .matched_stop = stored->matched_stop,
                  .prompt_tokens = stored->prompt_tokens,
                  .completion_tokens = stored->completion_tokens,
                  .chunks_closed = stored->chunks_closed,
                  .position = stored->position,
                  .version = stored->version};
}

// Whether no list and no string of it is longer than a request's can be.
bool IsBounded(const StoredRequest& stored) {
  const auto logged = static_cast<size_t>(stored.end_position - stored.begin_position);
  const auto is_bounded = [](const StoredLogProbs& probs) {
    return probs.top.size() <= size_t{kMaxTopLogProbs};
  };
  return stored.id.size() <= kMaxRequestIdBytes &&
         (!stored.finish || stored.finish->matched_stop.size() <= kMaxStopBytes) &&
         stored.append_logprobs.size() <= logged && stored.generated_logprobs.size() <= logged &&
         std::all_of(stored.generated_logprobs.begin(), stored.generated_logprobs.end(),
                     is_bounded);
}

absl::StatusOr<std::shared_ptr<RequestRecord>> FromStored(StoredRequest stored, int64_t position) {
  const bool known_kind = stored.kind <= static_cast<uint8_t>(RequestKind::kGenerate);
  const bool known_finish =
      !stored.finish || stored.finish->reason <= static_cast<uint8_t>(FinishReason::kLength);
  const bool turn_fits =
      stored.begin_open_turn.value_or(0) >= 0 &&
      stored.begin_open_turn.value_or(stored.begin_position) <= stored.begin_position;
  if (!known_kind || !known_finish || !turn_fits || stored.end_position > position ||
      !IsBounded(stored)) {
    return Broken("the record of request \"", stored.id, "\"");
  }
  auto record = std::make_shared<RequestRecord>();
  record->id = std::move(stored.id);
  record->kind = static_cast<RequestKind>(stored.kind);
  record->payload_hash = stored.payload_hash;
  record->begin_position = stored.begin_position;
  record->begin_version = stored.begin_version;
  record->begin_open_turn = stored.begin_open_turn;
  record->input_tokens = stored.input_tokens;
  record->end_position = stored.end_position;
  record->seed = stored.seed;
  record->append_logprobs = std::move(stored.append_logprobs);
  record->generated_logprobs = FromStored(stored.generated_logprobs);
  record->finished = FromStored(stored.finish);
  record->complete = stored.complete;
  return record;
}

absl::StatusOr<ControlLog> FromStored(const std::vector<ControlsSet>& entries) {
  if (entries.empty() || entries.front().position != 0) return Broken("it begins without controls");
  std::optional<ControlLog> log;
  for (const ControlsSet& entry : entries) {
    const absl::StatusOr<LearningControls> controls = FromStored(entry.controls);
    if (!controls.ok()) return Broken(std::string(controls.status().message()));
    if (log) {
      log->Set(entry.position, *controls);
    } else {
      log.emplace(*controls);
    }
  }
  return *std::move(log);
}

// The first chunk from `chunk` on whose update is logged: it closes deferred and learns.
int64_t NextDeferred(int64_t chunk, const ControlLog& controls, int64_t chunk_tokens, int64_t end) {
  for (; (chunk + 1) * chunk_tokens <= end; ++chunk) {
    const LearningControls& governing = controls.At((chunk + 1) * chunk_tokens - 1);
    if (governing.max_lag_chunks > 0 && !governing.freeze) return chunk;
  }
  return chunk;
}

// Each update must be the next one that there was to apply, where it could be applied.
absl::StatusOr<std::vector<UpdatePoint>> FromStored(const std::vector<UpdateApplied>& stored,
                                                    const ControlLog& controls,
                                                    int64_t chunk_tokens, int64_t position) {
  std::vector<UpdatePoint> points;
  if (chunk_tokens == 0 && !stored.empty()) return Broken("updates of a model that does not learn");
  int64_t chunk = 0;
  for (const UpdateApplied& update : stored) {
    chunk = NextDeferred(chunk, controls, chunk_tokens, position);
    const int64_t closed = (chunk + 1) * chunk_tokens;
    const int64_t after_last = points.empty() ? 0 : points.back().position;
    if (update.chunk != chunk || update.position < std::max(closed, after_last) ||
        update.position > position) {
      return Broken("the update of chunk ", update.chunk, " at ", update.position);
    }
    points.push_back({update.chunk, update.position});
    ++chunk;
  }
  return points;
}

}  // namespace

StoredControls ToStored(const LearningControls& controls) {
  return {.max_lag_chunks = controls.max_lag_chunks,
          .clip_norm = controls.clip_norm,
          .decay = controls.decay,
          .lr_scale = controls.lr_scale,
          .max_relative_norm = controls.max_relative_norm,
          .freeze = controls.freeze};
}

absl::StatusOr<LearningControls> FromStored(const StoredControls& controls) {
  const LearningControls result = {.max_lag_chunks = controls.max_lag_chunks,
                                   .clip_norm = controls.clip_norm,
                                   .decay = controls.decay,
                                   .lr_scale = controls.lr_scale,
                                   .max_relative_norm = controls.max_relative_norm,
                                   .freeze = controls.freeze};
  MNEME_RETURN_IF_ERROR(ValidateControls(result));
  return result;
}

uint64_t LogMeaning(const ModelConfig& config, const Tokenizer* tokenizer) {
  const int64_t chunk = config.ttt ? config.ttt->chunk : 0;
  std::string canonical = absl::StrCat(config.vocab_size, "|", chunk, "|");
  const int32_t tokens = tokenizer == nullptr ? 0 : tokenizer->vocab_size();
  for (int32_t id = 0; id < tokens; ++id) {
    const absl::string_view bytes = tokenizer->TokenBytes(id);
    absl::StrAppend(&canonical, bytes.size(), ":", bytes);
  }
  return XXH3_64bits(canonical.data(), canonical.size());
}

SessionMetadata MetadataOf(const Session& session, uint64_t log_meaning) {
  return {.tenant = session.key().tenant,
          .id = session.key().id,
          .labels = session.labels(),
          .ttl = session.ttl(),
          .create_time = session.create_time(),
          .log_meaning = log_meaning,
          .controls = ToStored(session.controls().latest()),
          .checkpoints = session.checkpoints()};
}

StoredRequest ToStored(const RequestRecord& record) {
  return {.id = record.id,
          .kind = static_cast<uint8_t>(record.kind),
          .payload_hash = record.payload_hash,
          .begin_position = record.begin_position,
          .begin_version = record.begin_version,
          .begin_open_turn = record.begin_open_turn,
          .input_tokens = record.input_tokens,
          .seed = record.seed,
          .end_position = record.end_position,
          .append_logprobs = record.append_logprobs,
          .generated_logprobs = ToStored(record.generated_logprobs),
          .finish = ToStored(record.finished),
          .complete = record.complete};
}

RequestAdvanced AdvanceOf(const RequestRecord& record, size_t append_logprobs,
                          size_t generated_logprobs) {
  const auto appended = absl::MakeConstSpan(record.append_logprobs).subspan(append_logprobs);
  return {.id = record.id,
          .end_position = record.end_position,
          .append_logprobs = {appended.begin(), appended.end()},
          .generated_logprobs =
              ToStored(absl::MakeConstSpan(record.generated_logprobs).subspan(generated_logprobs)),
          .finish = ToStored(record.finished),
          .complete = record.complete};
}

absl::StatusOr<SessionLogs> FromStored(SessionState state, const ModelConfig& config) {
  const int64_t position = state.position();
  if (position > config.MaxSessionTokens()) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     absl::StrCat("the session has ", position,
                                  " tokens, but the context of this "
                                  "model ends at ",
                                  config.MaxSessionTokens()),
                     {.reason = ErrorReason::kOtherModel});
  }
  for (const int32_t id : state.tokens) {
    if (id < 0 || id >= config.vocab_size) return Broken("token id ", id);
  }
  if (state.open_turn.value_or(0) < 0 || state.open_turn.value_or(0) > position) {
    return Broken("a turn open since ", *state.open_turn);
  }
  SessionLogs logs;
  MNEME_ASSIGN_OR_RETURN(logs.controls, FromStored(state.controls));
  MNEME_ASSIGN_OR_RETURN(logs.updates, FromStored(state.updates, logs.controls,
                                                  config.ttt ? config.ttt->chunk : 0, position));
  for (StoredRequest& request : state.requests) {
    MNEME_ASSIGN_OR_RETURN(auto record, FromStored(std::move(request), position));
    logs.records.Add(std::move(record));
  }
  logs.open_turn = state.open_turn;
  logs.tokens = std::move(state.tokens);
  return logs;
}

}  // namespace mneme
