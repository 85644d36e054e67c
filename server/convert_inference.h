#ifndef MNEME_SERVER_CONVERT_INFERENCE_H_
#define MNEME_SERVER_CONVERT_INFERENCE_H_

// Append and Generate between the wire and the engine.

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/loading/config.h"
#include "engine/request.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/turn_encoder.h"
#include "mneme/v1/inference.pb.h"

namespace mneme {

// What turns input into token ids. Without a tokenizer both pointers are null; not owned.
struct InputCodec {
  const Tokenizer* tokenizer = nullptr;
  const TurnEncoder* turns = nullptr;
  int64_t vocab_size = 0;  // of the model
};

// --- Append. ---
// The first message's header.
absl::StatusOr<AppendRequest> ToAppendRequest(const v1::AppendRequest& message,
                                              const std::string& tenant, absl::Time deadline);

// INVALID_ARGUMENT unless `message`, one after the first, leaves the header's fields unset (or has
// the first one's ids again).
absl::Status CheckLaterMessage(const v1::AppendRequest& message, const RequestHeader& header);

// The message's input; without ids only if it has none. INVALID_ARGUMENT for no tokens, a token id
// beyond the vocabulary or an unknown role; FAILED_PRECONDITION for text without a tokenizer.
absl::StatusOr<InputPiece> ToInputPiece(const v1::AppendRequest& message, const InputCodec& codec);

// --- Generate. ---
// The whole request, values that it leaves open from `defaults`. Ranges of sampling values and what
// depends on the session are the engine's to check.
absl::StatusOr<GenerateRequest> ToGenerateRequest(const v1::GenerateRequest& request,
                                                  const InputCodec& codec,
                                                  const GenerationDefaults& defaults,
                                                  const std::string& tenant, absl::Time deadline);

// --- Cancel, Tokenize, Detokenize. ---
// INVALID_ARGUMENT unless both ids are there.
absl::Status CheckCancel(const v1::CancelRequest& request);
absl::StatusOr<v1::TokenizeResponse> Tokenize(const v1::TokenizeRequest& request,
                                              const InputCodec& codec);
absl::StatusOr<v1::DetokenizeResponse> Detokenize(const v1::DetokenizeRequest& request,
                                                  const InputCodec& codec);

// --- Events. ---
void ToProto(const AppendProgress& progress, v1::AppendProgress* proto);
void ToProto(const GeneratedToken& token, const InputCodec& codec, v1::Token* proto);
// `last_token`: the generation's last token, absent if it had none.
void ToProto(const Finished& finished, std::optional<int32_t> last_token, const InputCodec& codec,
             v1::Finished* proto);

}  // namespace mneme

#endif  // MNEME_SERVER_CONVERT_INFERENCE_H_
