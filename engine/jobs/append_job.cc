#include "engine/jobs/append_job.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/error.h"

namespace mneme {

AppendJob::AppendJob(AppendRequest request, std::shared_ptr<RequestChannel> channel,
                     Session& session, JobContext& context, uint64_t arrival)
    : Job(RequestKind::kAppend, std::move(request.header), /*keeps_record=*/true,
          std::move(channel), session, context, arrival),
      return_logprobs_(request.return_logprobs) {}

absl::Status AppendJob::Begin() {
  MNEME_RETURN_IF_ERROR(OpenRecord(HashPayload(return_logprobs_ ? "append,logprobs" : "append")));
  verified_ = record_->begin_position;
  resolver_.emplace(session_.log(), record_->begin_position, record_->begin_open_turn,
                    context_.config.vocab_size);
  return absl::OkStatus();
}

absl::StatusOr<std::optional<Candidate>> AppendJob::NextRows() {
  MNEME_RETURN_IF_ERROR(TakeInput());
  if (!pending_.empty()) {
    const auto rows = static_cast<int64_t>(session_.uncomputed().size() + pending_.size());
    return Candidate{.rows_wanted = rows,
                     .updates = session_.state().UpdatesDue(rows, /*provisional=*/false)};
  }
  if (channel_->InputEnded()) MNEME_RETURN_IF_ERROR(Finish());
  return std::nullopt;
}

absl::Status AppendJob::TakeInput() {
  while (static_cast<int64_t>(pending_.size()) < context_.options.max_step_tokens) {
    const std::optional<InputPiece> piece = channel_->PopInput();
    if (!piece) return absl::OkStatus();
    MNEME_ASSIGN_OR_RETURN(std::vector<int32_t> tokens, resolver_->Resolve(*piece));
    if (resolver_->position() > context_limit()) {
      return MakeError(
          absl::StatusCode::kOutOfRange,
          absl::StrCat("the input would bring the session to position ", resolver_->position(),
                       ", but the model's context ends at ", context_limit()),
          {.reason = ErrorReason::kContextExhausted});
    }
    context_.stats.OnTokensIn(static_cast<int64_t>(tokens.size()));
    MNEME_RETURN_IF_ERROR(SkipLogged(&tokens));
    pending_.insert(pending_.end(), tokens.begin(), tokens.end());
  }
  return absl::OkStatus();
}

absl::Status AppendJob::SkipLogged(std::vector<int32_t>* tokens) {
  const int64_t logged_end = record_->end_position;
  if (verified_ == logged_end) {
    return record_->complete && !tokens->empty() ? PayloadMismatch() : absl::OkStatus();
  }
  const auto count = std::min(static_cast<int64_t>(tokens->size()), logged_end - verified_);
  if (!std::equal(tokens->begin(), tokens->begin() + count, session_.log().begin() + verified_)) {
    return PayloadMismatch();
  }
  tokens->erase(tokens->begin(), tokens->begin() + count);
  verified_ += count;
  if (verified_ < logged_end) return absl::OkStatus();
  SendProgress(record_->append_logprobs);
  return record_->complete && !tokens->empty() ? PayloadMismatch() : absl::OkStatus();
}

absl::Status AppendJob::PayloadMismatch() const {
  return MakeError(absl::StatusCode::kInvalidArgument,
                   absl::StrCat("the input differs from what request id \"", header_.request_id,
                                "\" has logged before"),
                   {.reason = ErrorReason::kPayloadMismatch});
}

absl::Status AppendJob::Finish() {
  if (resolver_->position() == record_->begin_position) {
    return InvalidInput("the input is empty: nothing was appended");
  }
  if (resolver_->position() < record_->end_position) return PayloadMismatch();
  record_->complete = true;
  set_done();
  return absl::OkStatus();
}

BlockCounts AppendJob::PeakBlocks(int64_t rows) const {
  const int64_t end = session_.computed() + rows;
  return session_.cache().PeakBlocks(session_.computed(), end, end, rows,
                                     session_.controls().latest().max_lag_chunks);
}

SequenceStep AppendJob::FillStep(int64_t rows) {
  const auto uncomputed = session_.uncomputed();
  SequenceStep step;
  step.first_position = session_.computed();
  step.tokens.assign(uncomputed.begin(), uncomputed.end());
  step.tokens.insert(step.tokens.end(), pending_.begin(),
                     pending_.begin() + (rows - static_cast<int64_t>(uncomputed.size())));
  if (return_logprobs_) {
    step.logprobs_from = session_.position();
    step.last_hidden = session_.last_hidden();
  }
  return step;
}

absl::Status AppendJob::TakeResults(SequenceStep& step) {
  const auto count = static_cast<std::ptrdiff_t>(step.end_position() - session_.position());
  Log(absl::MakeSpan(pending_.data(), static_cast<size_t>(count)));
  NoteTurn();
  verified_ = record_->end_position;
  pending_.erase(pending_.begin(), pending_.begin() + count);
  session_.state().Commit(step);
  session_.cache().ReleaseUnused();  // a piece's lease ends at its boundary
  record_->append_logprobs.insert(record_->append_logprobs.end(), step.logprobs.begin(),
                                  step.logprobs.end());
  SendProgress(std::move(step.logprobs));
  return absl::OkStatus();
}

void AppendJob::NoteTurn() {
  const std::optional<int64_t> turn = resolver_->open_turn();
  const bool opened = turn && *turn <= session_.position();  // its prefix is logged, not only read
  session_.set_open_turn(opened ? turn : std::nullopt);
}

void AppendJob::SendProgress(std::vector<float> logprobs) {
  const double seconds = absl::ToDoubleSeconds(context_.clock.Now() - arrival_time_);
  const int64_t position = record_->end_position;
  const auto tokens = static_cast<double>(position - record_->begin_position);
  Send(AppendProgress{.position = static_cast<uint64_t>(position),
                      .version = session_.VersionAt(position),
                      .chunks_closed = static_cast<uint64_t>(session_.ChunksClosedAt(position)),
                      .tokens_per_second = seconds > 0 ? tokens / seconds : 0,
                      .logprobs = std::move(logprobs)});
}

}  // namespace mneme
