#include "engine/jobs/generate_job.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/error.h"
#include "engine/jobs/input_resolver.h"

namespace mneme {
namespace {

// The status of a check of the request's values, with its reason.
absl::Status InvalidUnlessOk(const absl::Status& check) {
  return check.ok() ? check : InvalidInput(std::string(check.message()));
}

}  // namespace

GenerateJob::GenerateJob(GenerateRequest request, std::shared_ptr<RequestChannel> channel,
                         Session& session, JobContext& context, uint64_t arrival)
    : Job(RequestKind::kGenerate, request.header, /*keeps_record=*/request.learn,
          std::move(channel), session, context, arrival),
      request_(std::move(request)),
      text_(context.tokenizer, request_.stop) {
  stop_ids_ = request_.stop_token_ids;
  if (request_.ignore_eos) return;
  const auto& eos = context.defaults.eos_token_ids.empty() ? context.config.eos_token_ids
                                                           : context.defaults.eos_token_ids;
  stop_ids_.insert(stop_ids_.end(), eos.begin(), eos.end());
}

// --- Beginning. ---

absl::Status GenerateJob::Begin() {
  MNEME_RETURN_IF_ERROR(Validate());
  MNEME_RETURN_IF_ERROR(OpenRecord(PayloadHash()));
  base_ = record_->begin_position;
  max_lag_chunks_ = session_.controls().latest().max_lag_chunks;
  MNEME_RETURN_IF_ERROR(ResolveInput());
  MNEME_RETURN_IF_ERROR(ResolveLimits());
  if (record_->end_position > base_) return Replay();
  if (!request_.seed_given) request_.sampling.seed = context_.seeds();
  record_->seed = request_.sampling.seed;
  return absl::OkStatus();
}

absl::Status GenerateJob::Validate() const {
  MNEME_RETURN_IF_ERROR(
      InvalidUnlessOk(ValidateSamplingParams(request_.sampling, context_.config.vocab_size)));
  MNEME_RETURN_IF_ERROR(InvalidUnlessOk(ValidateStopStrings(request_.stop)));
  if (!request_.stop.empty() && context_.tokenizer == nullptr) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     "stop strings need a tokenizer, and the model has none; use stop_token_ids",
                     {.reason = ErrorReason::kInvalidInput});
  }
  for (int32_t id : request_.stop_token_ids) {
    if (id >= 0 && id < context_.config.vocab_size) continue;
    return InvalidInput(absl::StrCat("stop_token_ids: ", id, " is not in the vocabulary of ",
                                     context_.config.vocab_size));
  }
  if (request_.max_tokens && *request_.max_tokens < 1) {
    return InvalidInput(absl::StrCat("max_tokens must be at least 1, not ", *request_.max_tokens));
  }
  if (request_.max_tokens && request_.min_tokens > *request_.max_tokens) {
    return InvalidInput(absl::StrCat("min_tokens (", request_.min_tokens,
                                     ") is greater than max_tokens (", *request_.max_tokens, ")"));
  }
  return absl::OkStatus();
}

uint64_t GenerateJob::PayloadHash() const {
  const SamplingParams& s = request_.sampling;
  std::string canonical =
      absl::StrCat("generate|", s.temperature, "|", s.top_p, "|", s.min_p, "|", s.top_k, "|",
                   s.repetition_penalty, "|", s.presence_penalty, "|", s.frequency_penalty, "|",
                   request_.seed_given ? absl::StrCat(s.seed) : "drawn", "|",
                   request_.max_tokens.value_or(-1), "|", request_.min_tokens, "|",
                   request_.ignore_eos ? 1 : 0, "|", request_.logprobs.value_or(-1), "|");
  auto bias = s.logit_bias;
  std::sort(bias.begin(), bias.end());
  for (const auto& [id, value] : bias) absl::StrAppend(&canonical, id, ":", value, ",");
  for (const std::string& stop : request_.stop) {
    absl::StrAppend(&canonical, "|", stop.size(), ":", stop);
  }
  for (int32_t id : request_.stop_token_ids) absl::StrAppend(&canonical, "|", id);
  absl::StrAppend(&canonical, "|input");
  for (int32_t id : request_.input.ids) absl::StrAppend(&canonical, ",", id);
  return HashPayload(canonical);
}

absl::Status GenerateJob::ResolveInput() {
  InputResolver resolver(session_.log(), base_, record_->begin_open_turn,
                         context_.config.vocab_size);
  if (!request_.input.ids.empty()) {
    MNEME_ASSIGN_OR_RETURN(tokens_, resolver.Resolve(request_.input));
  } else if (base_ == 0) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     "the session is empty and the request has no input: there is nothing to "
                     "generate from",
                     {.reason = ErrorReason::kInvalidInput});
  }
  input_tokens_ = static_cast<int64_t>(tokens_.size());
  open_turn_ = resolver.open_turn();
  for (int32_t id : tokens_) counts_.Add(id);
  context_.stats.OnTokensIn(input_tokens_);
  return absl::OkStatus();
}

absl::Status GenerateJob::ResolveLimits() {
  const int64_t end = base_ + input_tokens_;
  max_tokens_ = request_.max_tokens.value_or(
      std::min(context_.options.default_max_tokens, context_limit() - end));
  return CheckContext(end, max_tokens_);
}

absl::Status GenerateJob::CheckContext(int64_t end, int64_t max_tokens) const {
  const int64_t room = context_limit() - end;
  if (room >= 1 && max_tokens <= room) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kOutOfRange,
      absl::StrCat("position ", end, " after the input + ", std::max<int64_t>(max_tokens, 1),
                   " tokens to generate is beyond the model's context of ", context_limit()),
      {.reason = ErrorReason::kContextExhausted});
}

absl::Status GenerateJob::CheckEverFits() const {
  // A retry needs less than it seems; what it does need shows when it begins. Whether it is one
  // cannot be told before the session is loaded.
  if (!session_.loaded() || session_.records().Find(header_.request_id) != nullptr) {
    return absl::OkStatus();
  }
  const int64_t end = session_.position() + static_cast<int64_t>(request_.input.ids.size());
  const int64_t max_tokens = std::max<int64_t>(request_.max_tokens.value_or(1), 1);
  MNEME_RETURN_IF_ERROR(CheckContext(end, max_tokens));
  return CheckFits(BlocksUntil(end + max_tokens));
}

absl::Status GenerateJob::Replay() {
  request_.sampling.seed = record_->seed;
  const auto begin = session_.log().begin() + base_;
  const std::vector<int32_t> logged(begin, begin + (record_->end_position - base_));
  logged_ = static_cast<int64_t>(logged.size());
  for (auto i = static_cast<size_t>(input_tokens_); i < logged.size() && !done(); ++i) {
    GeneratedToken token{.id = logged[i]};
    const size_t output = i - static_cast<size_t>(input_tokens_);
    if (request_.logprobs) {
      // A record that comes from the disk may hold anything.
      if (output >= record_->generated_logprobs.size()) {
        return MakeError(absl::StatusCode::kDataLoss,
                         "the request's record lacks log-probabilities of its tokens",
                         {.reason = ErrorReason::kDataLoss});
      }
      token.logprob = record_->generated_logprobs[output].logprob;
      token.top_logprobs = record_->generated_logprobs[output].top;
    }
    counts_.Add(token.id);
    tokens_.push_back(token.id);
    Deliver(std::move(token));
  }
  return absl::OkStatus();
}

// --- Steps. ---

int64_t GenerateJob::pending_tokens() const {
  return begun() ? RowsWanted() : static_cast<int64_t>(request_.input.ids.size());
}

int64_t GenerateJob::RowsWanted() const {
  const auto known = static_cast<int64_t>(tokens_.size());
  const auto uncomputed = static_cast<int64_t>(session_.uncomputed().size());
  if (request_.learn) return uncomputed + known - logged_;
  return uncomputed > 0 ? uncomputed : known - provisional_computed_;
}

absl::StatusOr<std::optional<Candidate>> GenerateJob::NextRows() {
  const int64_t rows = RowsWanted();
  const bool decodes = completion_tokens() > 0 && rows == 1;
  const bool provisional = !request_.learn && !catching_up();
  return Candidate{.kind = decodes ? WorkKind::kDecode : WorkKind::kPrefill,
                   .rows_wanted = rows,
                   .updates = session_.state().UpdatesDue(rows, provisional),
                   .learns = !provisional,
                   .begins_stream = !decodes};
}

BlockCounts GenerateJob::PeakBlocks(int64_t /*rows*/) const {
  // All that it can come to, so that a generation that has begun never waits for memory.
  return BlocksUntil(base_ + input_tokens_ + max_tokens_);
}

BlockCounts GenerateJob::BlocksUntil(int64_t end) const {
  return session_.cache().PeakBlocks(session_.computed(),
                                     request_.learn ? end : session_.position(), end,
                                     context_.options.max_step_tokens, max_lag_chunks_);
}

SequenceStep GenerateJob::FillStep(int64_t rows) {
  const bool all = rows == RowsWanted();
  SequenceStep step;
  if (request_.learn || catching_up()) {
    const auto uncomputed = session_.uncomputed();
    step.first_position = session_.computed();
    step.tokens.assign(uncomputed.begin(), uncomputed.end());
    if (request_.learn) {
      step.tokens.insert(step.tokens.end(), tokens_.begin() + logged_, tokens_.end());
    }
    if (all && request_.learn) step.sample = NextDraw();
    step.last_hidden = session_.last_hidden();
  } else {
    step.provisional = true;
    step.first_position = base_ + provisional_computed_;
    step.tokens.assign(tokens_.begin() + provisional_computed_, tokens_.end());
    if (all) step.sample = NextDraw();
    step.last_hidden = provisional_computed_ == 0 ? session_.last_hidden() : provisional_hidden_;
  }
  step.tokens.resize(static_cast<size_t>(rows));
  return step;
}

absl::Status GenerateJob::TakeResults(SequenceStep& step) {
  if (step.provisional) {
    provisional_computed_ += step.row_count();
    if (!step.tokens.empty()) provisional_hidden_ = std::move(step.hidden);
  } else {
    const int64_t new_tokens = std::max<int64_t>(step.end_position() - session_.position(), 0);
    if (new_tokens > 0) {
      Log(absl::MakeSpan(tokens_).subspan(static_cast<size_t>(logged_),
                                          static_cast<size_t>(new_tokens)));
      logged_ += new_tokens;
    }
    session_.state().Commit(step);
    if (request_.learn) NoteTurn();
  }
  return step.sample ? TakeToken(step.sampled) : absl::OkStatus();
}

void GenerateJob::NoteTurn() {
  // Half an input may have closed the turn that was open, but opens none.
  const bool whole = logged_ >= input_tokens_;
  const bool closes = open_turn_ != record_->begin_open_turn;
  if (whole || closes) session_.set_open_turn(whole ? open_turn_ : std::nullopt);
}

SampleRow GenerateJob::NextDraw() const {
  const bool too_early = completion_tokens() < request_.min_tokens;
  SampleRow row = {.params = &request_.sampling,
                   .position = static_cast<uint64_t>(base_) + tokens_.size()};
  if (request_.sampling.penalizes()) row.counts = counts_.counts();
  if (too_early) row.forbidden = stop_ids_;
  row.top_logprobs = request_.logprobs;
  return row;
}

absl::Status GenerateJob::TakeToken(const SampledRow& sampled) {
  if (sampled.finite == 0) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     "the model's output is not finite: the session's fast weights have diverged; "
                     "use clip_norm or a smaller lr_scale from the start",
                     {.reason = ErrorReason::kUnspecified});
  }
  GeneratedToken token{.id = sampled.id};
  if (request_.logprobs) {
    token.logprob = sampled.logprob;
    token.top_logprobs.assign(sampled.top.begin(), sampled.top.begin() + sampled.num_top);
  }
  counts_.Add(token.id);
  tokens_.push_back(token.id);
  if (request_.learn) {
    if (request_.logprobs) {
      record_->generated_logprobs.push_back({sampled.logprob, token.top_logprobs});
    }
    Log({token.id});
    ++logged_;
  }
  CountToken();
  Deliver(std::move(token));
  return absl::OkStatus();
}

// --- What the client sees. ---

bool GenerateJob::IsStop(int32_t id) const {
  return std::find(stop_ids_.begin(), stop_ids_.end(), id) != stop_ids_.end();
}

void GenerateJob::CountToken() {
  const absl::Time now = context_.clock.Now();
  if (last_token_time_) {
    context_.stats.OnNextToken(now - *last_token_time_);
  } else {
    context_.stats.OnFirstToken(now - arrival_time_);
  }
  last_token_time_ = now;
  context_.stats.OnTokensOut(1);
}

void GenerateJob::Deliver(GeneratedToken token) {
  if (IsStop(token.id)) {
    if (held_event_) held_event_->text += text_.Flush().text;
    Emit(std::move(token), /*hold=*/false);
    return Finish(FinishReason::kStop, "");
  }
  StopMatcher::Result text =
      text_.Push(token.id, /*match_stops=*/completion_tokens() >= request_.min_tokens);
  const bool last = completion_tokens() == max_tokens_;
  if (last && !text.matched) {
    StopMatcher::Result rest = text_.Flush();
    text.text += rest.text;
    text.matched = rest.matched;
  }
  token.text = std::move(text.text);
  const bool ends = last || text.matched.has_value();
  Emit(std::move(token), /*hold=*/!ends && text_.holding());
  if (text.matched) return Finish(FinishReason::kStop, *text.matched);
  if (last) Finish(FinishReason::kLength, "");
}

void GenerateJob::Emit(GeneratedToken event, bool hold) {
  if (held_event_) Send(*std::exchange(held_event_, std::nullopt));
  if (hold) {
    held_event_ = std::move(event);
  } else {
    Send(std::move(event));
  }
}

void GenerateJob::BeforeEnd() {
  if (held_event_) Send(*std::exchange(held_event_, std::nullopt));
}

void GenerateJob::Finish(FinishReason reason, std::string matched_stop) {
  set_done();
  Finished finished = {.reason = reason,
                       .matched_stop = std::move(matched_stop),
                       .prompt_tokens = static_cast<uint64_t>(input_tokens_),
                       .completion_tokens = static_cast<uint64_t>(completion_tokens())};
  const int64_t position = request_.learn ? record_->end_position : session_.position();
  finished.chunks_closed =
      static_cast<uint64_t>(session_.ChunksClosedAt(position) - session_.ChunksClosedAt(base_));
  finished.position = static_cast<uint64_t>(position);
  finished.version = session_.VersionAt(position);
  record_->complete = true;
  Send(std::move(finished));
}

}  // namespace mneme
