#ifndef MNEME_ENGINE_JOBS_RESTORE_JOB_H_
#define MNEME_ENGINE_JOBS_RESTORE_JOB_H_

#include <memory>

#include "engine/jobs/job.h"

namespace mneme {

// Brings a session back from the disk, at the head of its queue and before the requests behind it:
// its log and the newest state that was kept are read on another thread, then what is missing is
// computed again. Also a session that was rolled back behind its state. Nobody is told anything.
class RestoreJob : public Job {
 public:
  // For a request of `priority`.
  RestoreJob(Session& session, Priority priority, JobContext& context, uint64_t arrival);

  bool logs() const override { return false; }
  bool restores() const override { return true; }
  int64_t pending_tokens() const override { return 0; }

  // Reads, and images of files on their way to the device, at once: they take the host's memory.
  static constexpr int64_t kMaxReads = 4;

 protected:
  absl::Status Begin() override;
  absl::StatusOr<std::optional<Candidate>> NextRows() override;
  int64_t UpdatesFirst() const override;
  BlockCounts PeakBlocks(int64_t rows) const override;
  SequenceStep FillStep(int64_t rows) override;
  absl::Status TakeResults(SequenceStep& step) override;

 private:
  // Reads what is to be read; false while that is under way.
  absl::StatusOr<bool> Read();
  // Gives the session what was read.
  absl::Status TakeLog();
  void TakeImage();

  bool must_read_ = false;
  std::shared_ptr<SessionLog::Loading> loading_;  // of what is being read
};

}  // namespace mneme

#endif  // MNEME_ENGINE_JOBS_RESTORE_JOB_H_
