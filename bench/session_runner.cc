#include "bench/session_runner.h"

#include <utility>

#include "absl/status/status.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace mneme {
namespace {

// An upper bound of what one session of `max_tokens` holds.
int64_t SessionBytes(const ModelConfig& config, const Backend& backend, int64_t max_tokens) {
  const int64_t d = config.hidden_size, f = config.intermediate_size;
  const int64_t token_bytes =
      2 * config.num_layers * config.num_kv_heads * config.head_dim * SizeOf(backend.kv_dtype());
  const int64_t kv_bytes = (max_tokens + kPageTokens) * token_bytes;
  if (!config.ttt) return kv_bytes;
  const auto layers = static_cast<int64_t>(config.ttt->layers.size());
  return kv_bytes + layers * (d * f * SizeOf(backend.delta_dtype()) +
                              config.ttt->chunk * (d + f) * SizeOf(backend.activation_dtype()));
}

}  // namespace

absl::StatusOr<std::unique_ptr<SessionRunner>> SessionRunner::Create(const ModelConfig& config,
                                                                     const ModelWeights& weights,
                                                                     Backend& backend,
                                                                     int64_t step_tokens,
                                                                     int64_t max_tokens) {
  MNEME_ASSIGN_OR_RETURN(
      auto pools, CachePools::Create(config, backend, SessionBytes(config, backend, max_tokens)));
  MNEME_ASSIGN_OR_RETURN(auto model, Model::Create(config, weights, *pools, backend, step_tokens));
  return std::unique_ptr<SessionRunner>(
      new SessionRunner(config, std::move(pools), std::move(model)));
}

SessionRunner::SessionRunner(const ModelConfig& config, std::unique_ptr<CachePools> pools,
                             std::unique_ptr<Model> model)
    : config_(config), pools_(std::move(pools)), model_(std::move(model)) {
  Restart();
}

void SessionRunner::Restart() {
  cache_.reset();  // before the next one takes blocks
  cache_ = std::make_unique<SessionCache>(*pools_);
  MNEME_CHECK(cache_->Reserve(pools_->budget().limit_bytes()));
  position_ = 0;
  hidden_.clear();
  drawn_.clear();
}

absl::StatusOr<SessionRunner::Step> SessionRunner::Read(absl::Span<const int32_t> tokens) {
  const Stopwatch stopwatch;
  SequenceStep step;
  step.tokens.assign(tokens.begin(), tokens.end());
  MNEME_ASSIGN_OR_RETURN(Step done, Run(step));
  done.duration = stopwatch.Elapsed();
  return done;
}

absl::StatusOr<SessionRunner::Step> SessionRunner::Decode(int32_t first) {
  const Stopwatch stopwatch;
  SequenceStep step;
  step.tokens = drawn_.empty() ? std::vector<int32_t>{first} : drawn_;
  step.want_logits = true;
  MNEME_ASSIGN_OR_RETURN(Step done, Run(step));
  const SampledToken next = sampler_.Sample(step.logits, {.temperature = 0}, TokenCounts(),
                                            static_cast<uint64_t>(position_), {}, std::nullopt);
  drawn_ = {next.id};
  done.duration = stopwatch.Elapsed();
  return done;
}

absl::StatusOr<SessionRunner::Step> SessionRunner::Run(SequenceStep& step) {
  step.cache = cache_.get();
  step.controls = &controls_;
  step.first_position = position_;
  step.last_hidden = hidden_;
  PrepareCache(step);
  MNEME_ASSIGN_OR_RETURN(const ModelStepStats stats, model_->Run({&step, 1}));
  FinishCache(step);
  position_ = step.end_position();
  hidden_ = step.hidden;
  return Step{.chunks_closed = stats.chunks_closed,
              .update_ms = absl::ToDoubleMilliseconds(stats.update_time)};
}

void SessionRunner::PrepareCache(const SequenceStep& step) {
  cache_->ExtendPages(step.end_position());
  if (!config_.ttt) return;
  const int64_t chunk = config_.ttt->chunk;
  if (step.end_position() % chunk != 0 && !cache_->has_chunk_rows()) cache_->TakeChunkRows();
  if (step.end_position() / chunk > 0 && !cache_->has_deltas()) cache_->TakeDeltas();
}

void SessionRunner::FinishCache(const SequenceStep& step) {
  cache_->RecyclePages(step.end_position());
  const bool chunk_ended = config_.ttt && step.end_position() % config_.ttt->chunk == 0;
  if (chunk_ended && cache_->has_chunk_rows()) cache_->GiveChunkRows();
}

}  // namespace mneme
