#include "engine/restore_job.h"

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
  if (!session_.loaded()) loading_ = context_.log->Load(session_, context_.config);
  return absl::OkStatus();
}

absl::StatusOr<std::optional<Candidate>> RestoreJob::NextRows() {
  if (!session_.loaded()) {
    if (!loading_->result) return std::nullopt;
    MNEME_RETURN_IF_ERROR(TakeLog());
  }
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
  // A computed state that was kept elsewhere would be put into session_.state() here: the replay
  // goes on from where the state stands.
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
