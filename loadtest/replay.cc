#include "loadtest/replay.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "loadtest/requests.h"
#include "loadtest/rpc_status.h"

namespace mneme {
namespace {

struct Generated {
  std::vector<v1::Token> tokens;
  v1::Finished finished;
};

absl::StatusOr<Generated> Generate(const Connection& connection,
                                   const v1::GenerateRequest& request) {
  grpc::ClientContext context;
  const auto stream = connection.inference->Generate(&context, request);
  Generated generated;
  v1::GenerateEvent event;
  while (stream->Read(&event)) {
    if (event.has_finished()) generated.finished = event.finished();
    if (event.has_token()) generated.tokens.push_back(event.token());
  }
  MNEME_RETURN_IF_ERROR(FromRpc("a Generate of the replay", stream->Finish()));
  return generated;
}

absl::Status Append(const Connection& connection, const v1::AppendRequest& request) {
  grpc::ClientContext context;
  const auto stream = connection.inference->Append(&context);
  stream->Write(request);
  stream->WritesDone();
  v1::AppendProgress progress;
  while (stream->Read(&progress)) {
  }
  return FromRpc("an Append of the replay", stream->Finish());
}

// One session alone, which lives as long as this.
class Replay {
 public:
  Replay(const LoadOptions& options, const Connection& connection, uint32_t vocab_size,
         const CheckedSession& session, CheckReport& report)
      : options_(options),
        connection_(connection),
        vocab_size_(vocab_size),
        session_(session),
        report_(report),
        id_(session.id + "-alone") {}

  ~Replay() {
    grpc::ClientContext context;
    v1::DeleteSessionRequest request;
    request.set_session_id(id_);
    v1::DeleteSessionResponse response;
    // Nothing can be done about a failure, and the session is gone if it was never made.
    connection_.sessions->DeleteSession(&context, request, &response);
  }

  absl::Status Run() {
    MNEME_RETURN_IF_ERROR(Create());
    ++report_.sessions;
    const auto count = static_cast<int64_t>(session_.results.size());
    for (size_t i = 0; i < session_.results.size(); ++i) {
      MNEME_ASSIGN_OR_RETURN(const bool go_on, Step(i));
      if (go_on) continue;
      report_.not_compared += count - static_cast<int64_t>(i) - 1;
      break;
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Create() {
    grpc::ClientContext context;
    v1::CreateSessionRequest request;
    request.set_session_id(id_);
    v1::Session session;
    return FromRpc("a CreateSession of the replay",
                   connection_.sessions->CreateSession(&context, request, &session));
  }

  // Replays request `index`; false: the session goes no further.
  absl::StatusOr<bool> Step(size_t index) {
    const StreamResult& result = session_.results[index];
    v1::GenerateRequest request = MakeGenerate(options_, session_.arrival, index, vocab_size_, id_);
    if (result.finished) return Compare(request, result);
    const std::optional<uint64_t> end = EndOf(index);
    if (end) return StepTo(*end, std::move(request), result);
    if (result.ids.empty()) {
      ++report_.not_compared;
      return false;
    }
    request.set_max_tokens(static_cast<uint32_t>(result.ids.size()));
    MNEME_RETURN_IF_ERROR(Compare(request, result).status());
    return false;
  }

  // Replays a request that was given up, as far as the session has kept it: up to position `end`.
  absl::StatusOr<bool> StepTo(uint64_t end, v1::GenerateRequest request,
                              const StreamResult& result) {
    const auto& ids = request.token_ids().ids();
    const auto input = static_cast<uint64_t>(ids.size());
    const uint64_t kept = end - position_;
    if (end < position_ || kept > input + request.max_tokens() ||
        (!result.ids.empty() && kept < input + result.ids.size())) {
      return Differ(end, "the next request did not begin where this one can have ended");
    }
    if (kept > input) {
      request.set_max_tokens(static_cast<uint32_t>(kept - input));
      return Compare(request, result);
    }
    ++report_.streams;
    if (kept == 0) return true;
    v1::AppendRequest append;
    append.set_session_id(id_);
    append.mutable_token_ids()->mutable_ids()->Add(ids.begin(),
                                                   ids.begin() + static_cast<int64_t>(kept));
    position_ = end;
    MNEME_RETURN_IF_ERROR(Append(connection_, append));
    return true;
  }

  // Where a request that did not finish has left the session, if that can be told.
  std::optional<uint64_t> EndOf(size_t index) const {
    if (options_.text || index + 1 == session_.results.size()) return std::nullopt;
    const std::optional<v1::Finished>& next = session_.results[index + 1].finished;
    if (!next) return std::nullopt;
    return next->position() - next->usage().prompt_tokens() - next->usage().completion_tokens();
  }

  absl::StatusOr<bool> Compare(v1::GenerateRequest request, const StreamResult& result) {
    request.set_logprobs(2);
    MNEME_ASSIGN_OR_RETURN(const Generated alone, Generate(connection_, request));
    ++report_.streams;
    position_ = alone.finished.position();
    const uint64_t first = position_ - alone.tokens.size();
    const size_t both = std::min(alone.tokens.size(), result.ids.size());
    for (size_t i = 0; i < both; ++i) {
      const v1::Token& token = alone.tokens[i];
      if (token.id() == result.ids[i]) {
        ++report_.tokens;
      } else if (IsTie(token, result.ids[i])) {
        ++report_.ties;
        return false;
      } else {
        return Differ(first + i,
                      absl::StrCat("token ", result.ids[i], " under load, ", token.id(), " alone"));
      }
    }
    if (result.ids.size() > alone.tokens.size() ||
        (result.finished && result.finished->position() != position_)) {
      return Differ(first + both, absl::StrCat(result.ids.size(), " tokens under load, ",
                                               alone.tokens.size(), " alone"));
    }
    return true;
  }

  // Whether `id` is the second best by no more than the tolerance.
  bool IsTie(const v1::Token& token, uint32_t id) const {
    return token.top_logprobs_size() == 2 && token.top_logprobs(1).id() == id &&
           token.logprob() - token.top_logprobs(1).logprob() < options_.tie_tolerance;
  }

  bool Differ(uint64_t position, std::string what) {
    report_.differences.push_back({session_.id, position, std::move(what)});
    return false;
  }

  const LoadOptions& options_;
  const Connection& connection_;
  const uint32_t vocab_size_;
  const CheckedSession& session_;
  CheckReport& report_;
  const std::string id_;
  uint64_t position_ = 0;  // of the session alone
};

}  // namespace

absl::StatusOr<CheckReport> CompareWithAlone(const LoadOptions& options,
                                             const Connection& connection, uint32_t vocab_size,
                                             const std::vector<CheckedSession>& sessions,
                                             std::stop_token stop) {
  CheckReport report;
  for (const CheckedSession& session : sessions) {
    if (stop.stop_requested()) break;
    MNEME_RETURN_IF_ERROR(Replay(options, connection, vocab_size, session, report).Run());
  }
  return report;
}

}  // namespace mneme
