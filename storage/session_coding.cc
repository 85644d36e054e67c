#include "storage/session_coding.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "base/status_macros.h"
#include "storage/coding.h"

namespace mneme {
namespace {

constexpr uint8_t kVersion = 1;
constexpr uint8_t kMetadataVersion = 2;  // 1: without checkpoints' names

// Numbers in files: a type is never given another meaning.
enum class EventType : uint8_t {
  kTokensLogged = 1,
  kControlsSet = 2,
  kUpdateApplied = 3,
  kOpenTurnSet = 4,
  kRequestRecorded = 5,
  kRequestAdvanced = 6,
  kRolledBack = 7,
};

// --- Parts. ---

void PutTime(absl::Time time, ByteWriter* out) { out->Fixed<int64_t>(absl::ToUnixMicros(time)); }
absl::Time GetTime(ByteReader* in) { return absl::FromUnixMicros(in->Fixed<int64_t>()); }

void PutOptional(const std::optional<int64_t>& value, ByteWriter* out) {
  out->Bool(value.has_value());
  if (value) out->Fixed(*value);
}

std::optional<int64_t> GetOptional(ByteReader* in) {
  if (!in->Bool()) return std::nullopt;
  return in->Fixed<int64_t>();
}

void PutLogProbs(const std::vector<StoredLogProbs>& all, ByteWriter* out) {
  out->Varint(all.size());
  for (const StoredLogProbs& probs : all) {
    out->Fixed(probs.logprob);
    out->Varint(probs.top.size());
    for (const StoredTokenLogProb& top : probs.top) {
      out->Fixed(top.id);
      out->Fixed(top.logprob);
    }
  }
}

std::vector<StoredLogProbs> GetLogProbs(ByteReader* in) {
  std::vector<StoredLogProbs> all(in->Count(sizeof(float) + 1));
  for (StoredLogProbs& probs : all) {
    probs.logprob = in->Fixed<float>();
    probs.top.resize(in->Count(sizeof(int32_t) + sizeof(float)));
    for (StoredTokenLogProb& top : probs.top) {
      top.id = in->Fixed<int32_t>();
      top.logprob = in->Fixed<float>();
    }
  }
  return all;
}

void PutFinish(const std::optional<StoredFinish>& finish, ByteWriter* out) {
  out->Bool(finish.has_value());
  if (!finish) return;
  out->Fixed(finish->reason);
  out->String(finish->matched_stop);
  for (uint64_t value : {finish->prompt_tokens, finish->completion_tokens, finish->chunks_closed,
                         finish->position, finish->version}) {
    out->Fixed(value);
  }
}

std::optional<StoredFinish> GetFinish(ByteReader* in) {
  if (!in->Bool()) return std::nullopt;
  StoredFinish finish;
  finish.reason = in->Fixed<uint8_t>();
  finish.matched_stop = in->String();
  for (uint64_t* value : {&finish.prompt_tokens, &finish.completion_tokens, &finish.chunks_closed,
                          &finish.position, &finish.version}) {
    *value = in->Fixed<uint64_t>();
  }
  return finish;
}

void PutControls(const StoredControls& controls, ByteWriter* out) {
  out->Fixed(controls.max_lag_chunks);
  out->Fixed(controls.clip_norm);
  out->Fixed(controls.decay);
  out->Fixed(controls.lr_scale);
  out->Fixed(controls.max_relative_norm);
  out->Bool(controls.freeze);
}

StoredControls GetControls(ByteReader* in) {
  StoredControls controls;
  controls.max_lag_chunks = in->Fixed<int64_t>();
  controls.clip_norm = in->Fixed<float>();
  controls.decay = in->Fixed<float>();
  controls.lr_scale = in->Fixed<float>();
  controls.max_relative_norm = in->Fixed<float>();
  controls.freeze = in->Bool();
  return controls;
}

// --- Events. ---

struct EventEncoder {
  ByteWriter& out;

  void Type(EventType type) const { out.Fixed(type); }

  void operator()(const TokensLogged& event) const { Tokens(event.tokens); }
  void Tokens(absl::Span<const int32_t> tokens) const {
    Type(EventType::kTokensLogged);
    out.Array(tokens);
  }
  void operator()(const ControlsSet& event) const {
    Type(EventType::kControlsSet);
    out.Fixed(event.position);
    PutControls(event.controls, &out);
  }
  void operator()(const UpdateApplied& event) const {
    Type(EventType::kUpdateApplied);
    out.Fixed(event.chunk);
    out.Fixed(event.position);
  }
  void operator()(const OpenTurnSet& event) const {
    Type(EventType::kOpenTurnSet);
    PutOptional(event.open_turn, &out);
  }
  void operator()(const RequestRecorded& event) const {
    Type(EventType::kRequestRecorded);
    const StoredRequest& request = event.request;
    out.String(request.id);
    out.Fixed(request.kind);
    out.Fixed(request.payload_hash);
    out.Fixed(request.begin_position);
    out.Fixed(request.begin_version);
    PutOptional(request.begin_open_turn, &out);
    out.Fixed(request.input_tokens);
    out.Fixed(request.seed);
    out.Fixed(request.end_position);
    out.Array(absl::MakeConstSpan(request.append_logprobs));
    PutLogProbs(request.generated_logprobs, &out);
    PutFinish(request.finish, &out);
    out.Bool(request.complete);
  }
  void operator()(const RequestAdvanced& event) const {
    Type(EventType::kRequestAdvanced);
    out.String(event.id);
    out.Fixed(event.end_position);
    out.Array(absl::MakeConstSpan(event.append_logprobs));
    PutLogProbs(event.generated_logprobs, &out);
    PutFinish(event.finish, &out);
    out.Bool(event.complete);
  }
  void operator()(const RolledBack& event) const {
    Type(EventType::kRolledBack);
    out.Fixed(event.position);
    out.Fixed(event.epoch);
  }
};

// Events that become one record.
struct Part {
  std::string bytes;
  uint64_t events = 0;
  int64_t tokens = 0;  // that they log
};

class Cutter {
 public:
  explicit Cutter(size_t max_bytes) : max_bytes_(max_bytes) {}

  void Add(const SessionEvent& event) {
    const auto* logged = std::get_if<TokensLogged>(&event);
    if (logged == nullptr || logged->tokens.empty()) return AddWhole(event);
    const size_t most = std::max<size_t>(max_bytes_ / sizeof(int32_t), 1);
    for (size_t begin = 0; begin < logged->tokens.size(); begin += most) {
      const auto tokens = absl::MakeConstSpan(logged->tokens).subspan(begin, most);
      ByteWriter out;
      EventEncoder{out}.Tokens(tokens);
      AddBytes(out.bytes());
      parts_.back().tokens += static_cast<int64_t>(tokens.size());
      if (most >= logged->tokens.size()) return;
    }
  }
  const std::vector<Part>& parts() const { return parts_; }

 private:
  void AddWhole(const SessionEvent& event) {
    ByteWriter out;
    std::visit(EventEncoder{out}, event);
    AddBytes(out.bytes());
  }
  void AddBytes(const std::string& bytes) {
    const size_t taken = parts_.back().bytes.size();
    if (taken > 0 && bytes.size() > max_bytes_ - std::min(taken, max_bytes_)) parts_.emplace_back();
    parts_.back().bytes += bytes;
    ++parts_.back().events;
  }

  const size_t max_bytes_;
  std::vector<Part> parts_{1};
};

TokensLogged GetTokensLogged(ByteReader* in) {
  TokensLogged event;
  in->Array(&event.tokens);
  return event;
}

ControlsSet GetControlsSet(ByteReader* in) {
  ControlsSet event;
  event.position = in->Fixed<int64_t>();
  event.controls = GetControls(in);
  return event;
}

UpdateApplied GetUpdateApplied(ByteReader* in) {
  UpdateApplied event;
  event.chunk = in->Fixed<int64_t>();
  event.position = in->Fixed<int64_t>();
  return event;
}

RequestRecorded GetRequestRecorded(ByteReader* in) {
  RequestRecorded event;
  StoredRequest& request = event.request;
  request.id = in->String();
  request.kind = in->Fixed<uint8_t>();
  request.payload_hash = in->Fixed<uint64_t>();
  request.begin_position = in->Fixed<int64_t>();
  request.begin_version = in->Fixed<uint64_t>();
  request.begin_open_turn = GetOptional(in);
  request.input_tokens = in->Fixed<int64_t>();
  request.seed = in->Fixed<uint64_t>();
  request.end_position = in->Fixed<int64_t>();
  in->Array(&request.append_logprobs);
  request.generated_logprobs = GetLogProbs(in);
  request.finish = GetFinish(in);
  request.complete = in->Bool();
  return event;
}

RequestAdvanced GetRequestAdvanced(ByteReader* in) {
  RequestAdvanced event;
  event.id = in->String();
  event.end_position = in->Fixed<int64_t>();
  in->Array(&event.append_logprobs);
  event.generated_logprobs = GetLogProbs(in);
  event.finish = GetFinish(in);
  event.complete = in->Bool();
  return event;
}

RolledBack GetRolledBack(ByteReader* in) {
  RolledBack event;
  event.position = in->Fixed<int64_t>();
  event.epoch = in->Fixed<uint32_t>();
  return event;
}

SessionEvent GetEvent(ByteReader* in) {
  switch (in->Fixed<EventType>()) {
    case EventType::kTokensLogged:
      return GetTokensLogged(in);
    case EventType::kControlsSet:
      return GetControlsSet(in);
    case EventType::kUpdateApplied:
      return GetUpdateApplied(in);
    case EventType::kOpenTurnSet:
      return OpenTurnSet{GetOptional(in)};
    case EventType::kRequestRecorded:
      return GetRequestRecorded(in);
    case EventType::kRequestAdvanced:
      return GetRequestAdvanced(in);
    case EventType::kRolledBack:
      return GetRolledBack(in);
  }
  in->Fail();
  return TokensLogged();
}

LogRecordHead GetHead(ByteReader* in) {
  LogRecordHead head;
  if (in->Fixed<uint8_t>() != kVersion) in->Fail();
  head.epoch = in->Fixed<uint32_t>();
  head.position = in->Fixed<int64_t>();
  head.time = GetTime(in);
  head.whole = in->Bool();
  return head;
}

}  // namespace

std::string EncodeLogRecord(const LogRecordHead& head, const std::vector<SessionEvent>& events) {
  return EncodeLogRecords(head, events, SIZE_MAX).front();
}

std::vector<std::string> EncodeLogRecords(const LogRecordHead& head,
                                          const std::vector<SessionEvent>& events,
                                          size_t max_bytes) {
  Cutter cutter(max_bytes);
  for (const SessionEvent& event : events) cutter.Add(event);
  const std::vector<Part>& parts = cutter.parts();
  std::vector<std::string> records(parts.size());
  int64_t position = head.position;
  for (size_t i = parts.size(); i-- > 0; position -= parts[i].tokens) {
    ByteWriter out;
    out.Fixed(kVersion);
    out.Fixed(head.epoch);
    out.Fixed(position);
    PutTime(head.time, &out);
    out.Bool(head.whole && i == 0);
    out.Varint(parts[i].events);
    out.Raw(parts[i].bytes);
    records[i] = out.Take();
  }
  return records;
}

absl::StatusOr<LogRecordHead> DecodeLogRecordHead(absl::string_view bytes) {
  ByteReader in(bytes);
  LogRecordHead head = GetHead(&in);
  if (!in.ok()) return absl::DataLossError("a log record cannot be decoded");
  return head;
}

absl::StatusOr<LogRecordHead> ApplyLogRecord(absl::string_view bytes, SessionState* state) {
  ByteReader in(bytes);
  const LogRecordHead head = GetHead(&in);
  if (head.whole) *state = SessionState();
  for (size_t count = in.Count(1); count > 0 && in.ok(); --count) {
    SessionEvent event = GetEvent(&in);
    if (in.ok()) MNEME_RETURN_IF_ERROR(state->Apply(std::move(event)));
  }
  MNEME_RETURN_IF_ERROR(in.Finish("a log record"));
  if (state->position() == head.position && state->epoch == head.epoch) return head;
  return absl::DataLossError(absl::StrCat("a log record leads to position ", head.position,
                                          " of epoch ", head.epoch, ", its events to ",
                                          state->position(), " of ", state->epoch));
}

std::string EncodeMetadata(const SessionMetadata& metadata) {
  ByteWriter out;
  out.Fixed(kMetadataVersion);
  out.String(metadata.tenant);
  out.String(metadata.id);
  out.Varint(metadata.labels.size());
  for (const auto& [name, value] : metadata.labels) {
    out.String(name);
    out.String(value);
  }
  out.Bool(metadata.ttl.has_value());
  if (metadata.ttl) out.Fixed<int64_t>(absl::ToInt64Microseconds(*metadata.ttl));
  PutTime(metadata.create_time, &out);
  out.Fixed(metadata.log_meaning);
  PutControls(metadata.controls, &out);
  out.Varint(metadata.checkpoints.size());
  for (const auto& [name, position] : metadata.checkpoints) {
    out.String(name);
    out.Fixed(position);
  }
  return out.Take();
}

absl::StatusOr<SessionMetadata> DecodeMetadata(absl::string_view bytes) {
  ByteReader in(bytes);
  SessionMetadata metadata;
  const auto version = in.Fixed<uint8_t>();
  if (version < 1 || version > kMetadataVersion) in.Fail();
  metadata.tenant = in.String();
  metadata.id = in.String();
  for (size_t count = in.Count(2); count > 0 && in.ok(); --count) {
    std::string name = in.String();
    metadata.labels[std::move(name)] = in.String();
  }
  if (in.Bool()) metadata.ttl = absl::Microseconds(in.Fixed<int64_t>());
  metadata.create_time = GetTime(&in);
  metadata.log_meaning = in.Fixed<uint64_t>();
  metadata.controls = GetControls(&in);
  const size_t checkpoints = version < 2 ? 0 : in.Count(1 + sizeof(int64_t));
  for (size_t count = checkpoints; count > 0 && in.ok(); --count) {
    std::string name = in.String();
    metadata.checkpoints[std::move(name)] = in.Fixed<int64_t>();
  }
  MNEME_RETURN_IF_ERROR(in.Finish("a session's metadata"));
  return metadata;
}

}  // namespace mneme
