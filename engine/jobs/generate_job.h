#ifndef MNEME_ENGINE_JOBS_GENERATE_JOB_H_
#define MNEME_ENGINE_JOBS_GENERATE_JOB_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "engine/jobs/job.h"
#include "engine/sampling/text_stream.h"

namespace mneme {

// Reads its input and then generates token by token. With `learn` off both stay out of the session:
// its rows are provisional, and nothing of them is left at the end.
class GenerateJob : public Job {
 public:
  GenerateJob(GenerateRequest request, std::shared_ptr<RequestChannel> channel, Session& session,
              JobContext& context, uint64_t arrival);

  bool logs() const override { return request_.learn && !header_.session.id.empty(); }
  int64_t pending_tokens() const override;
  absl::Status CheckEverFits() const override;

 protected:
  absl::Status Begin() override;
  absl::StatusOr<std::optional<Candidate>> NextRows() override;
  BlockCounts PeakBlocks(int64_t rows) const override;
  SequenceStep FillStep(int64_t rows) override;
  absl::Status TakeResults(SequenceStep& step) override;
  void BeforeEnd() override;

 private:
  absl::Status Validate() const;
  uint64_t PayloadHash() const;
  absl::Status ResolveInput();
  absl::Status ResolveLimits();
  // Of `max_tokens` behind a log and input that end at `end`.
  absl::Status CheckContext(int64_t end, int64_t max_tokens) const;
  BlockCounts BlocksUntil(int64_t end) const;
  // A retry sends again what was generated, and goes on behind it.
  absl::Status Replay();

  // A logged token of the session that is not computed yet comes before provisional rows.
  bool catching_up() const { return !request_.learn && !session_.uncomputed().empty(); }
  int64_t RowsWanted() const;
  void NoteTurn();
  // How the token after those known so far is to be drawn.
  SampleRow NextDraw() const;
  absl::Status TakeToken(const SampledRow& sampled);
  void CountToken();
  // Sends a generated token and finds out whether it is the last.
  void Deliver(GeneratedToken token);
  void Emit(GeneratedToken event, bool hold);
  void Finish(FinishReason reason, std::string matched_stop);
  bool IsStop(int32_t id) const;
  int64_t completion_tokens() const { return static_cast<int64_t>(tokens_.size()) - input_tokens_; }

  GenerateRequest request_;
  std::vector<int32_t> stop_ids_;  // that end the generation
  TextStream text_;
  TokenCounts counts_;

  // The request's tokens, input and then output, from base_ on.
  int64_t base_ = 0;
  std::vector<int32_t> tokens_;
  int64_t input_tokens_ = 0;
  std::optional<int64_t> open_turn_;  // after the input
  int64_t max_tokens_ = 0;
  int64_t max_lag_chunks_ = 0;  // for which memory is reserved, whatever becomes of the controls

  // With learn: how many of tokens_ are logged. Without: how many are computed, and the hidden row
  // after them.
  int64_t logged_ = 0;
  int64_t provisional_computed_ = 0;
  HiddenRow provisional_hidden_;

  std::optional<GeneratedToken> held_event_;  // its text may still grow
  std::optional<absl::Time> last_token_time_;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_JOBS_GENERATE_JOB_H_
