#include "engine/jobs/restore_job.h"

#include <algorithm>
#include <utility>

#include "base/status_macros.h"
#include "engine/error.h"

namespace mneme {

RestoreJob::RestoreJob(Session& session, Priority priority, JobContext& context, uint64_t arrival)
    : Job(RequestKind::kAppend, {.session = session.key(), .priority = priority},
          /*keeps_record=*/false, std::make_shared<RequestChannel>(nullptr), session, context,
          arrival) {}

absl::Status RestoreJob::Begin() {
  const bool is_kept = context_.log->Keeps(session_);
  must_read_ =
      !session_.loaded() || (is_kept && session_.replay() != nullptr && session_.computed() == 0);
  return absl::OkStatus();
}

absl::StatusOr<std::optional<Candidate>> RestoreJob::NextRows() {
  MNEME_ASSIGN_OR_RETURN(const bool is_here, Read());
  if (!is_here) return std::nullopt;
  const Replay* replay = session_.replay();
  if (replay == nullptr || replay->DoneAt(session_.state())) {
    session_.EndReplay();
    set_done();
    return std::nullopt;
  }
  const int64_t rows = replay->RowsAt(session_.state());
  return Candidate{.rows_wanted = rows,
                   .updates = std::max(UpdatesFirst(),
                                       session_.state().UpdatesDue(rows, /*provisional=*/false))};
}

absl::StatusOr<bool> RestoreJob::Read() {
  if (!must_read_) return true;
  if (loading_ == nullptr) {
    if (context_.log->loads() + context_.tiers->adopted() >= kMaxReads) return false;
    loading_ = context_.log->Load(session_, context_.config);
  }
  if (!loading_->result) return false;
  must_read_ = false;
  if (!session_.loaded()) MNEME_RETURN_IF_ERROR(TakeLog());
  TakeImage();
  loading_.reset();
  return context_.tiers->IsHere(session_);
}

void RestoreJob::TakeImage() {
  StoredImage& stored = loading_->stored;
  for (const absl::Status& why : stored.refused) context_.stats.OnCheckpointRefused(why);
  const int64_t computed = stored.image ? stored.image->shape.computed : 0;
  context_.stats.OnRestoring(computed, session_.position());
  if (!stored.image || session_.replay() == nullptr) return;
  context_.checkpointer->OnRestored(session_, computed);
  context_.tiers->Adopt(session_, *std::move(stored.image));  // the replay goes on from there
}

absl::Status RestoreJob::TakeLog() {
  absl::StatusOr<SessionLogs>& logs = *loading_->result;
  if (logs.ok() && static_cast<int64_t>(logs->tokens.size()) != session_.position()) {
    logs =
        MakeError(absl::StatusCode::kDataLoss, "the session's log is not the one that was listed",
                  {.reason = ErrorReason::kDataLoss});
  }
  if (!logs.ok()) {
    if (!absl::IsUnavailable(logs.status())) session_.set_damage(logs.status());
    return logs.status();
  }
  context_.log->OnLoaded(session_, *logs);
  session_.Load(*std::move(logs));
  return absl::OkStatus();
}

int64_t RestoreJob::UpdatesFirst() const {
  return std::min(session_.replay()->UpdatesAt(session_.state()),
                  session_.state().waiting_updates());
}

BlockCounts RestoreJob::PeakBlocks(int64_t rows) const {
  const int64_t end = session_.computed() + rows;
  return session_.cache().PeakBlocks(session_.computed(), end, end, rows,
                                     session_.replay()->max_lag_chunks());
}

SequenceStep RestoreJob::FillStep(int64_t rows) {
  const auto tokens = session_.uncomputed().subspan(0, static_cast<size_t>(rows));
  SequenceStep step;
  step.first_position = session_.computed();
  step.tokens.assign(tokens.begin(), tokens.end());
  return step;
}

absl::Status RestoreJob::TakeResults(SequenceStep& step) {
  session_.state().Commit(step);
  session_.cache().ReleaseUnused();  // a piece's lease ends at its boundary
  return absl::OkStatus();
}

}  // namespace mneme
