#include "server/convert_inference.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/convert_session.h"
#include "server/convert_status.h"

namespace mneme {
namespace {

constexpr uint32_t kMaxTopLogProbs = 20;
constexpr int kMaxStops = 16;

// The `input` of either request; at most one pointer is set.
struct Input {
  const std::string* text = nullptr;
  const v1::TokenIds* token_ids = nullptr;
  const v1::Messages* messages = nullptr;
  bool parse_special = false;

  bool empty() const { return text == nullptr && token_ids == nullptr && messages == nullptr; }
};

template <typename Request>
Input InputOf(const Request& request) {
  return {request.has_text() ? &request.text() : nullptr,
          request.has_token_ids() ? &request.token_ids() : nullptr,
          request.has_messages() ? &request.messages() : nullptr, request.parse_special()};
}

absl::Status NoTokenizer(const std::string& field) {
  return RequestError(absl::StatusCode::kFailedPrecondition, v1::ERROR_REASON_NO_TOKENIZER, field,
                      "the model has no tokenizer: send token_ids");
}

absl::Status EmptyInput(const std::string& field) {
  return RequestError(absl::StatusCode::kInvalidArgument, v1::ERROR_REASON_EMPTY_INPUT, field,
                      absl::StrCat(field, " holds no token"));
}

absl::StatusOr<std::vector<int32_t>> CheckedIds(
    const google::protobuf::RepeatedField<uint32_t>& proto, const std::string& field,
    int64_t vocab_size) {
  std::vector<int32_t> ids;
  ids.reserve(static_cast<size_t>(proto.size()));
  for (const uint32_t id : proto) {
    if (id >= vocab_size) {
      return RequestError(
          absl::StatusCode::kInvalidArgument, v1::ERROR_REASON_TOKEN_OUT_OF_VOCABULARY, field,
          absl::StrCat("token id ", id, " is beyond the vocabulary of ", vocab_size, " tokens"));
    }
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

absl::StatusOr<InputPiece> EncodeText(const std::string& text, bool parse_special,
                                      const InputCodec& codec) {
  if (codec.tokenizer == nullptr) return NoTokenizer("text");
  InputPiece piece;
  MNEME_ASSIGN_OR_RETURN(piece.ids, codec.tokenizer->Encode(text, parse_special));
  piece.bos = codec.tokenizer->bos_id();
  if (piece.ids.empty()) return EmptyInput("text");
  return piece;
}

absl::StatusOr<InputPiece> EncodeMessages(const Input& input, const InputCodec& codec) {
  if (codec.turns == nullptr) return NoTokenizer("messages");
  if (input.messages->messages().empty()) return EmptyInput("messages");
  InputPiece piece;
  piece.bos = codec.tokenizer->bos_id();
  piece.turn_end = codec.turns->assistant_suffix();
  for (const v1::Message& message : input.messages->messages()) {
    MNEME_ASSIGN_OR_RETURN(
        const std::vector<int32_t> ids,
        codec.turns->EncodeMessage(message.role(), message.content(), input.parse_special));
    piece.ids.insert(piece.ids.end(), ids.begin(), ids.end());
  }
  return piece;
}

absl::StatusOr<InputPiece> EncodeTokenIds(const v1::TokenIds& token_ids, const InputCodec& codec) {
  InputPiece piece;
  MNEME_ASSIGN_OR_RETURN(piece.ids, CheckedIds(token_ids.ids(), "token_ids", codec.vocab_size));
  if (piece.ids.empty()) return EmptyInput("token_ids");
  return piece;
}

absl::StatusOr<InputPiece> Encode(const Input& input, const InputCodec& codec) {
  if (input.text != nullptr) return EncodeText(*input.text, input.parse_special, codec);
  if (input.token_ids != nullptr) return EncodeTokenIds(*input.token_ids, codec);
  return EncodeMessages(input, codec);
}

absl::Status CheckRequestId(const std::string& id) {
  if (id.empty() || ValidateSessionId(id).ok()) return absl::OkStatus();
  return InvalidField("request_id", "a request id is 0 to 128 characters of A-Z a-z 0-9 . _ : -");
}

absl::StatusOr<Priority> ToPriority(v1::Priority priority) {
  switch (priority) {
    case v1::PRIORITY_HIGH:
      return Priority::kHigh;
    case v1::PRIORITY_UNSPECIFIED:
    case v1::PRIORITY_NORMAL:
      return Priority::kNormal;
    case v1::PRIORITY_LOW:
      return Priority::kLow;
    default:
      return InvalidField("priority",
                          absl::StrCat("there is no priority ", static_cast<int>(priority)));
  }
}

template <typename Request>
absl::StatusOr<RequestHeader> HeaderOf(const Request& request, const std::string& tenant,
                                       absl::Time deadline) {
  MNEME_RETURN_IF_ERROR(CheckRequestId(request.request_id()));
  RequestHeader header;
  header.session = {tenant, request.session_id()};
  header.request_id = request.request_id();
  if (request.has_expected_position()) header.expected_position = request.expected_position();
  if (request.has_expected_version()) header.expected_version = request.expected_version();
  header.deadline = deadline;
  MNEME_ASSIGN_OR_RETURN(header.priority, ToPriority(request.priority()));
  return header;
}

absl::StatusOr<SamplingParams> ToSamplingParams(const v1::SamplingParams& proto,
                                                const GenerationDefaults& defaults,
                                                int64_t vocab_size) {
  const SamplingParams neutral;
  SamplingParams params;
  params.temperature = proto.has_temperature() ? proto.temperature()
                                               : defaults.temperature.value_or(neutral.temperature);
  params.top_p = proto.has_top_p() ? proto.top_p() : defaults.top_p.value_or(neutral.top_p);
  params.min_p = proto.has_min_p() ? proto.min_p() : defaults.min_p.value_or(neutral.min_p);
  params.repetition_penalty =
      proto.has_repetition_penalty()
          ? proto.repetition_penalty()
          : defaults.repetition_penalty.value_or(neutral.repetition_penalty);
  params.presence_penalty = proto.presence_penalty();
  params.frequency_penalty = proto.frequency_penalty();
  // A vocabulary has fewer tokens than int32 has values: keeping more means keeping all.
  constexpr uint32_t kMaxTopK = std::numeric_limits<int32_t>::max();
  params.top_k = proto.has_top_k() ? static_cast<int32_t>(std::min(proto.top_k(), kMaxTopK))
                                   : defaults.top_k.value_or(neutral.top_k);
  params.seed = proto.seed();
  for (const auto& [id, bias] : proto.logit_bias()) {
    if (id >= vocab_size) {
      return RequestError(absl::StatusCode::kInvalidArgument,
                          v1::ERROR_REASON_TOKEN_OUT_OF_VOCABULARY, "sampling.logit_bias",
                          absl::StrCat("logit_bias: token id ", id, " is beyond the vocabulary of ",
                                       vocab_size, " tokens"));
    }
    params.logit_bias.emplace_back(static_cast<int32_t>(id), bias);
  }
  std::sort(params.logit_bias.begin(), params.logit_bias.end());  // the map has no order
  return params;
}

absl::Status SetLimits(const v1::GenerateRequest& request, GenerateRequest& generate) {
  if (request.has_max_tokens()) {
    if (request.max_tokens() == 0) return InvalidField("max_tokens", "max_tokens must be positive");
    generate.max_tokens = request.max_tokens();
  }
  generate.min_tokens = request.min_tokens();
  if (generate.max_tokens && generate.min_tokens > *generate.max_tokens) {
    return InvalidField(
        "min_tokens", absl::StrCat("min_tokens ", generate.min_tokens, " is more than max_tokens ",
                                   *generate.max_tokens));
  }
  if (request.has_logprobs()) {
    if (request.logprobs() > kMaxTopLogProbs) {
      return InvalidField("logprobs", absl::StrCat("logprobs is at most ", kMaxTopLogProbs,
                                                   ", not ", request.logprobs()));
    }
    generate.logprobs = static_cast<int>(request.logprobs());
  }
  return absl::OkStatus();
}

absl::Status SetStops(const v1::GenerateRequest& request, const InputCodec& codec,
                      GenerateRequest& generate) {
  if (!request.stop().empty() && codec.tokenizer == nullptr) return NoTokenizer("stop");
  if (request.stop_size() > kMaxStops) {
    return InvalidField(
        "stop", absl::StrCat("at most ", kMaxStops, " stop strings, not ", request.stop_size()));
  }
  generate.stop.assign(request.stop().begin(), request.stop().end());
  MNEME_ASSIGN_OR_RETURN(generate.stop_token_ids,
                         CheckedIds(request.stop_token_ids(), "stop_token_ids", codec.vocab_size));
  return absl::OkStatus();
}

absl::Status SetInput(const v1::GenerateRequest& request, const InputCodec& codec,
                      GenerateRequest& generate) {
  const Input input = InputOf(request);
  if (input.empty()) return absl::OkStatus();
  MNEME_ASSIGN_OR_RETURN(generate.input, Encode(input, codec));
  if (input.messages == nullptr) return absl::OkStatus();
  const std::vector<int32_t>& prefix = codec.turns->assistant_prefix();
  generate.input.ids.insert(generate.input.ids.end(), prefix.begin(), prefix.end());
  generate.input.opens_turn = true;
  return absl::OkStatus();
}

// One token spelled out, special ones included; empty without a tokenizer and for an id that only
// the model has.
std::string Spell(int32_t id, const InputCodec& codec) {
  if (codec.tokenizer == nullptr) return "";
  return codec.tokenizer->Decode({&id, 1}, true).value_or("");
}

}  // namespace

absl::StatusOr<AppendRequest> ToAppendRequest(const v1::AppendRequest& message,
                                              const std::string& tenant, absl::Time deadline) {
  MNEME_RETURN_IF_ERROR(RequireSessionId(message.session_id()));
  AppendRequest request;
  MNEME_ASSIGN_OR_RETURN(request.header, HeaderOf(message, tenant, deadline));
  request.return_logprobs = message.return_logprobs();
  return request;
}

absl::Status CheckLaterMessage(const v1::AppendRequest& message, const RequestHeader& header) {
  const auto differs = [](const std::string& later, const std::string& first) {
    return !later.empty() && later != first;
  };
  if (differs(message.session_id(), header.session.id)) {
    return InvalidField("session_id", "session_id differs from the first message's");
  }
  if (differs(message.request_id(), header.request_id)) {
    return InvalidField("request_id", "request_id differs from the first message's");
  }
  if (message.has_expected_position() || message.has_expected_version() ||
      message.return_logprobs()) {
    return InvalidField("",
                        "expected_position, expected_version and return_logprobs belong to "
                        "the first message alone");
  }
  return absl::OkStatus();
}

absl::StatusOr<InputPiece> ToInputPiece(const v1::AppendRequest& message, const InputCodec& codec) {
  const Input input = InputOf(message);
  return input.empty() ? InputPiece() : Encode(input, codec);
}

absl::StatusOr<GenerateRequest> ToGenerateRequest(const v1::GenerateRequest& request,
                                                  const InputCodec& codec,
                                                  const GenerationDefaults& defaults,
                                                  const std::string& tenant, absl::Time deadline) {
  GenerateRequest generate;
  MNEME_ASSIGN_OR_RETURN(generate.header, HeaderOf(request, tenant, deadline));
  MNEME_ASSIGN_OR_RETURN(generate.sampling,
                         ToSamplingParams(request.sampling(), defaults, codec.vocab_size));
  generate.seed_given = request.sampling().has_seed();
  MNEME_RETURN_IF_ERROR(SetLimits(request, generate));
  MNEME_RETURN_IF_ERROR(SetStops(request, codec, generate));
  MNEME_RETURN_IF_ERROR(SetInput(request, codec, generate));
  generate.ignore_eos = request.ignore_eos();
  generate.learn = !request.has_learn() || request.learn();
  return generate;
}

absl::Status CheckCancel(const v1::CancelRequest& request) {
  MNEME_RETURN_IF_ERROR(RequireSessionId(request.session_id()));
  return request.request_id().empty() ? InvalidField("request_id", "request_id is missing")
                                      : absl::OkStatus();
}

absl::StatusOr<v1::TokenizeResponse> Tokenize(const v1::TokenizeRequest& request,
                                              const InputCodec& codec) {
  if (codec.tokenizer == nullptr) return NoTokenizer("text");
  MNEME_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                         codec.tokenizer->Encode(request.text(), request.parse_special()));
  v1::TokenizeResponse response;
  for (const int32_t id : ids) response.add_ids(static_cast<uint32_t>(id));
  return response;
}

absl::StatusOr<v1::DetokenizeResponse> Detokenize(const v1::DetokenizeRequest& request,
                                                  const InputCodec& codec) {
  if (codec.tokenizer == nullptr) return NoTokenizer("ids");
  MNEME_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                         CheckedIds(request.ids(), "ids", codec.tokenizer->vocab_size()));
  v1::DetokenizeResponse response;
  MNEME_ASSIGN_OR_RETURN(*response.mutable_text(), codec.tokenizer->Decode(ids, true));
  return response;
}

void ToProto(const AppendProgress& progress, v1::AppendProgress* proto) {
  proto->set_position(progress.position);
  proto->set_version(progress.version);
  proto->set_chunks_closed(progress.chunks_closed);
  proto->set_tokens_per_second(progress.tokens_per_second);
  proto->mutable_logprobs()->Add(progress.logprobs.begin(), progress.logprobs.end());
}

void ToProto(const GeneratedToken& token, const InputCodec& codec, v1::Token* proto) {
  proto->set_id(static_cast<uint32_t>(token.id));
  proto->set_text(token.text);
  if (token.logprob) proto->set_logprob(*token.logprob);
  for (const TokenLogProb& top : token.top_logprobs) {
    v1::TopLogprob* entry = proto->add_top_logprobs();
    entry->set_id(static_cast<uint32_t>(top.id));
    entry->set_text(Spell(top.id, codec));
    entry->set_logprob(top.logprob);
  }
}

void ToProto(const Finished& finished, std::optional<int32_t> last_token, const InputCodec& codec,
             v1::Finished* proto) {
  proto->set_reason(finished.reason == FinishReason::kStop ? v1::FINISH_REASON_STOP
                                                           : v1::FINISH_REASON_LENGTH);
  if (finished.reason == FinishReason::kStop) {
    const bool by_token = finished.matched_stop.empty() && last_token.has_value();
    if (by_token) proto->set_matched_stop_token_id(static_cast<uint32_t>(*last_token));
    proto->set_matched_stop(by_token ? Spell(*last_token, codec) : finished.matched_stop);
  }
  proto->mutable_usage()->set_prompt_tokens(finished.prompt_tokens);
  proto->mutable_usage()->set_completion_tokens(finished.completion_tokens);
  proto->mutable_usage()->set_chunks_closed(finished.chunks_closed);
  proto->set_position(finished.position);
  proto->set_version(finished.version);
}

}  // namespace mneme
