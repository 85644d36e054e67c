#include "bench/stream_set.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace mneme {

absl::StatusOr<std::unique_ptr<StreamSet>> StreamSet::Create(const ModelConfig& config,
                                                             const ModelWeights& weights,
                                                             Backend& backend, int64_t streams,
                                                             int64_t step_tokens,
                                                             int64_t max_tokens) {
  const int64_t rows = std::max(step_tokens, streams);
  MNEME_ASSIGN_OR_RETURN(auto model, Model::Create(config, weights, backend, rows));
  const int64_t session_bytes = CachePools::SessionBytes(config, backend, max_tokens, step_tokens);
  constexpr int64_t kRounding = int64_t{1} << 20;  // of the division among the pools
  MNEME_ASSIGN_OR_RETURN(auto pools,
                         CachePools::Create(config, backend,
                                            {.limit_bytes = streams * session_bytes + kRounding,
                                             .session_tokens = max_tokens,
                                             .max_step_tokens = step_tokens}));
  return std::unique_ptr<StreamSet>(
      new StreamSet(config, std::move(pools), std::move(model), streams, step_tokens, max_tokens));
}

StreamSet::StreamSet(const ModelConfig& config, std::unique_ptr<CachePools> pools,
                     std::unique_ptr<Model> model, int64_t streams, int64_t step_tokens,
                     int64_t max_tokens)
    : config_(config),
      step_tokens_(step_tokens),
      max_tokens_(max_tokens),
      pools_(std::move(pools)),
      model_(std::move(model)),
      sessions_(static_cast<size_t>(streams)) {
  Restart();
}

void StreamSet::Restart() {
  for (Session& session : sessions_) session = Session();  // before the next ones take blocks
  for (Session& session : sessions_) {
    session.state = std::make_unique<ComputedState>(*pools_);
    SessionCache& cache = session.state->cache();
    MNEME_CHECK(cache.Reserve(
        cache.PeakBlocks(0, max_tokens_, max_tokens_, step_tokens_, /*max_lag_chunks=*/0)));
  }
}

absl::StatusOr<StreamSet::Step> StreamSet::Read(int64_t stream, absl::Span<const int32_t> tokens,
                                                std::vector<float>* logprobs) {
  Session& session = sessions_[static_cast<size_t>(stream)];
  Step all;
  for (size_t done = 0; done < tokens.size(); done += static_cast<size_t>(step_tokens_)) {
    MNEME_ASSIGN_OR_RETURN(
        const Step step,
        ReadStep(session, tokens.subspan(done, static_cast<size_t>(step_tokens_)), logprobs));
    all += step;
  }
  MNEME_ASSIGN_OR_RETURN(const Step learning, LearnWaiting(session));
  all += learning;
  return all;
}

absl::StatusOr<StreamSet::Step> StreamSet::ReadStep(Session& session,
                                                    absl::Span<const int32_t> tokens,
                                                    std::vector<float>* logprobs) {
  SequenceStep step = MakeStep(session, {tokens.begin(), tokens.end()});
  if (logprobs != nullptr) step.logprobs_from = session.state->computed();
  MNEME_ASSIGN_OR_RETURN(const Step done, Run({&step, 1}));
  if (logprobs != nullptr) {
    logprobs->insert(logprobs->end(), step.logprobs.begin(), step.logprobs.end());
  }
  session.state->Commit(step);
  return done;
}

absl::StatusOr<StreamSet::Step> StreamSet::LearnWaiting(Session& session) {
  if (session.state->waiting_updates() == 0) return Step();
  SequenceStep step;
  session.state->Prepare(step, session.state->waiting_updates());
  return Run({&step, 1});
}

absl::StatusOr<StreamSet::Step> StreamSet::Decode(int32_t first) {
  std::vector<SequenceStep> steps;
  for (Session& session : sessions_) {
    SequenceStep step = MakeStep(session, {session.drawn.value_or(first)});
    step.sample = SampleRow{.params = &greedy_,
                            .position = static_cast<uint64_t>(session.state->computed()) + 1};
    steps.push_back(std::move(step));
  }
  MNEME_ASSIGN_OR_RETURN(const Step done, Run(absl::MakeSpan(steps)));
  for (size_t i = 0; i < steps.size(); ++i) {
    if (steps[i].sampled.finite == 0) {
      return absl::FailedPreconditionError(
          absl::StrCat("the logits of session ", i, " at position ", sessions_[i].state->computed(),
                       " are not finite"));
    }
    sessions_[i].drawn = steps[i].sampled.id;
    sessions_[i].state->Commit(steps[i]);
  }
  return done;
}

SequenceStep StreamSet::MakeStep(Session& session, std::vector<int32_t> tokens) {
  SequenceStep step;
  step.controls = &controls_;
  step.first_position = session.state->computed();
  step.last_hidden = session.state->last_hidden();
  step.tokens = std::move(tokens);
  session.state->Prepare(step);
  return step;
}

absl::StatusOr<StreamSet::Step> StreamSet::Run(absl::Span<SequenceStep> steps) {
  const Stopwatch stopwatch;
  MNEME_ASSIGN_OR_RETURN(const ModelStepStats stats, model_->Run(*pools_, steps));
  return Step{.duration = stopwatch.Elapsed(),
              .chunks_closed = stats.chunks_closed,
              .updates_skipped = stats.updates.skipped};
}

}  // namespace mneme
