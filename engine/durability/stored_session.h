#ifndef MNEME_ENGINE_DURABILITY_STORED_SESSION_H_
#define MNEME_ENGINE_DURABILITY_STORED_SESSION_H_

// Sessions as the store keeps them, and back. What comes from the store is hostile input: it is
// validated like a request's.

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/loading/config.h"
#include "engine/request.h"
#include "engine/session/session.h"
#include "engine/tokenizer/tokenizer.h"
#include "storage/session_state.h"

namespace mneme {

StoredControls ToStored(const LearningControls& controls);
// INVALID_ARGUMENT as ValidateControls.
absl::StatusOr<LearningControls> FromStored(const StoredControls& controls);

// Of what gives the numbers in a log their meaning: the tokens' spellings (`tokenizer` may be
// null), the vocabulary's size and the chunk size. A log can be replayed where this is equal,
// whatever the weights.
uint64_t LogMeaning(const ModelConfig& config, const Tokenizer* tokenizer);

SessionMetadata MetadataOf(const Session& session, uint64_t log_meaning);

StoredRequest ToStored(const RequestRecord& record);
// What has come to `record` since it had `append_logprobs` and `generated_logprobs` of these.
RequestAdvanced AdvanceOf(const RequestRecord& record, size_t append_logprobs,
                          size_t generated_logprobs);

// The logs of a session of this model. DATA_LOSS for values that it can never have logged;
// FAILED_PRECONDITION if the model's context is too short for it.
absl::StatusOr<SessionLogs> FromStored(SessionState state, const ModelConfig& config);

}  // namespace mneme

#endif  // MNEME_ENGINE_DURABILITY_STORED_SESSION_H_
