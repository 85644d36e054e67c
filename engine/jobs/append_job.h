#ifndef MNEME_ENGINE_JOBS_APPEND_JOB_H_
#define MNEME_ENGINE_JOBS_APPEND_JOB_H_

#include <memory>
#include <optional>
#include <vector>

#include "engine/jobs/input_resolver.h"
#include "engine/jobs/job.h"

namespace mneme {

// Reads input into a session, piece by piece as the scheduler finds room.
class AppendJob : public Job {
 public:
  AppendJob(AppendRequest request, std::shared_ptr<RequestChannel> channel, Session& session,
            JobContext& context, uint64_t arrival);

  bool logs() const override { return true; }
  int64_t pending_tokens() const override {
    return static_cast<int64_t>(pending_.size()) + channel_->queued_input_tokens();
  }

 protected:
  absl::Status Begin() override;
  absl::StatusOr<std::optional<Candidate>> NextRows() override;
  BlockCounts PeakBlocks(int64_t rows) const override;
  SequenceStep FillStep(int64_t rows) override;
  absl::Status TakeResults(SequenceStep& step) override;

 private:
  // Takes input from the channel until a full step waits.
  absl::Status TakeInput();
  // A retry sends again what is logged: compares it and goes on behind it.
  absl::Status SkipLogged(std::vector<int32_t>* tokens);
  absl::Status PayloadMismatch() const;
  absl::Status Finish();
  // What the log says of an assistant's turn.
  void NoteTurn();
  void SendProgress(std::vector<float> logprobs);

  const bool return_logprobs_;
  std::optional<InputResolver> resolver_;
  int64_t verified_ = 0;          // position up to which the input is known to be logged
  std::vector<int32_t> pending_;  // resolved and not yet logged
};

}  // namespace mneme

#endif  // MNEME_ENGINE_JOBS_APPEND_JOB_H_
