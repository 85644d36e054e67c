#ifndef MNEME_ENGINE_RESTORE_JOB_H_
#define MNEME_ENGINE_RESTORE_JOB_H_

#include <memory>

#include "engine/job.h"

namespace mneme {

// Brings a session back from the disk, at the head of its queue and before the requests behind it:
// its log is read on another thread, then its state is computed again. Nobody is told anything.
class RestoreJob : public Job {
 public:
  // For a request of `priority`.
  RestoreJob(Session& session, Priority priority, JobContext& context, uint64_t arrival);

  bool logs() const override { return false; }
  int64_t pending_tokens() const override { return 0; }

 protected:
  absl::Status Begin() override;
  absl::StatusOr<std::optional<Candidate>> NextRows() override;
  int64_t UpdatesFirst() const override;
  BlockCounts PeakBlocks(int64_t rows) const override;
  SequenceStep FillStep(int64_t rows) override;
  absl::Status TakeResults(SequenceStep& step) override;

 private:
  // Gives the session what was read.
  absl::Status TakeLog();

  std::shared_ptr<SessionLog::Loading> loading_;  // null: the log is there
};

}  // namespace mneme

#endif  // MNEME_ENGINE_RESTORE_JOB_H_
