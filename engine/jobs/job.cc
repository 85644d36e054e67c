#include "engine/jobs/job.h"

#include <xxhash.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "engine/error.h"

namespace mneme {
namespace {

absl::Status Aborted(const std::string& message, ErrorReason reason) {
  return MakeError(absl::StatusCode::kAborted, message, {.reason = reason, .retryable = false});
}

}  // namespace

absl::Status InvalidInput(const std::string& message) {
  return MakeError(absl::StatusCode::kInvalidArgument, message,
                   {.reason = ErrorReason::kInvalidInput});
}

uint64_t HashPayload(const std::string& canonical) {
  return XXH3_64bits(canonical.data(), canonical.size());
}

Job::Job(RequestKind kind, RequestHeader header, bool keeps_record,
         std::shared_ptr<RequestChannel> channel, Session& session, JobContext& context,
         uint64_t arrival)
    : kind_(kind),
      header_(std::move(header)),
      channel_(std::move(channel)),
      session_(session),
      context_(context),
      arrival_time_(context.clock.Now()),
      keeps_record_(keeps_record && !header_.request_id.empty()),
      arrival_(arrival) {}

absl::Status Job::Interruption(absl::Time now) const {
  if (const auto cancelled = channel_->cancelled()) return *cancelled;
  if (now >= header_.deadline) {
    return MakeError(absl::StatusCode::kDeadlineExceeded, "the request's deadline has passed",
                     {.reason = ErrorReason::kDeadlineExceeded, .retryable = true});
  }
  if (now < ReadingEnds() || !channel_->EventsFull()) return absl::OkStatus();
  return MakeError(absl::StatusCode::kCancelled,
                   absl::StrCat("the client has read nothing for ",
                                absl::FormatDuration(context_.options.slow_reader_limit),
                                " while its events waited (--slow_reader_seconds)"),
                   {.reason = ErrorReason::kSlowReader, .retryable = true});
}

absl::Time Job::ReadingEnds() const {
  return unread_since_ ? *unread_since_ + context_.options.slow_reader_limit
                       : absl::InfiniteFuture();
}

absl::Time Job::interruption_time() const { return std::min(header_.deadline, ReadingEnds()); }

absl::StatusOr<std::optional<Candidate>> Job::Next() {
  if (!begun_) {
    begun_ = true;
    session_.Touch(context_.clock.Now());
    MNEME_RETURN_IF_ERROR(Begin());
  }
  if (done_) return std::nullopt;
  waits_for_client_ = true;
  if (channel_->EventsFull()) {
    if (!unread_since_) unread_since_ = context_.clock.Now();
    return std::nullopt;
  }
  unread_since_.reset();
  MNEME_ASSIGN_OR_RETURN(std::optional<Candidate> candidate, NextRows());
  if (candidate) {
    waits_for_client_ = false;
    candidate->priority = header_.priority;
    candidate->position = session_.computed();
    candidate->arrival = arrival_;
    candidate->last_step = last_step_;
    candidate->has_begun = last_step_ != 0 || holds_lease();
  }
  return candidate;
}

absl::StatusOr<bool> Job::Reserve(int64_t rows, bool may_grow) {
  const BlockCounts blocks = PeakBlocks(rows);
  SessionCache& cache = session_.cache();
  if ((may_grow || cache.Covers(blocks)) && cache.Reserve(blocks)) return true;
  MNEME_RETURN_IF_ERROR(CheckFits(blocks));
  missing_bytes_ = cache.MissingBytes(blocks);
  return false;
}

absl::Status Job::CheckFits(const BlockCounts& blocks) const {
  absl::Status fits = session_.cache().budget().CheckFits(blocks);
  if (fits.ok()) return fits;
  return MakeError(fits.code(), std::string(fits.message()),
                   {.reason = ErrorReason::kOutOfMemory, .retryable = false});
}

SequenceStep Job::MakeStep(int64_t rows, uint64_t step_number) {
  last_step_ = step_number;
  SequenceStep step = FillStep(rows);
  step.controls = &session_.controls();
  session_.state().Prepare(step, UpdatesFirst());
  return step;
}

absl::Status Job::Commit(SequenceStep& step) {
  absl::Status status = TakeResults(step);
  session_.Touch(context_.clock.Now());
  context_.log->Note(session_, record_);
  return status;
}

absl::Status Job::OpenRecord(uint64_t payload_hash) {
  const auto known = session_.records().Find(header_.request_id);
  if (known == nullptr) {
    record_ = std::make_shared<RequestRecord>();
    record_->id = header_.request_id;
    record_->kind = kind_;
    record_->payload_hash = payload_hash;
    record_->begin_position = record_->end_position = session_.position();
    record_->begin_version = session_.version();
    record_->begin_open_turn = session_.open_turn();
    return CheckPreconditions();
  }
  if (!keeps_record_ || known->kind != kind_ || known->payload_hash != payload_hash) {
    return MakeError(absl::StatusCode::kInvalidArgument,
                     absl::StrCat("request id \"", header_.request_id,
                                  "\" was used before with another payload"),
                     {.reason = ErrorReason::kPayloadMismatch});
  }
  record_ = known;
  recorded_ = true;
  MNEME_RETURN_IF_ERROR(CheckPreconditions());
  if (record_->complete || record_->end_position == session_.position()) return absl::OkStatus();
  return Aborted(absl::StrCat("request \"", header_.request_id,
                              "\" did not come to its end, and the session went on without it"),
                 ErrorReason::kRequestSuperseded);
}

absl::Status Job::CheckPreconditions() const {
  const auto position = static_cast<uint64_t>(record_->begin_position);
  if (header_.expected_position.value_or(position) != position) {
    return Aborted(absl::StrCat("the session is at position ", position, ", not at ",
                                *header_.expected_position),
                   ErrorReason::kPositionMismatch);
  }
  if (header_.expected_version.value_or(record_->begin_version) != record_->begin_version) {
    return Aborted(absl::StrCat("the session is at version ", record_->begin_version, ", not at ",
                                *header_.expected_version),
                   ErrorReason::kVersionMismatch);
  }
  return absl::OkStatus();
}

void Job::Log(absl::Span<const int32_t> tokens) {
  session_.Log(tokens);
  record_->end_position = session_.position();
  if (recorded_ || !keeps_record_) return;
  recorded_ = true;
  session_.records().Add(record_);
}

void Job::End(const absl::Status& status) {
  BeforeEnd();
  if (begun_) {  // else the lease and the provisional pages are those of a request before it
    session_.cache().TruncatePages(session_.computed());
    session_.cache().ReleaseUnused();
  }
  session_.Touch(context_.clock.Now());
  context_.log->Note(session_, record_);
  Send(RequestEnd{
      WithPosition(status, static_cast<uint64_t>(session_.position()), session_.version())});
}

}  // namespace mneme
