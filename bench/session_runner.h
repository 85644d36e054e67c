#ifndef MNEME_BENCH_SESSION_RUNNER_H_
#define MNEME_BENCH_SESSION_RUNNER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "bench/stopwatch.h"
#include "engine/model.h"
#include "engine/sampler.h"

namespace mneme {

// One session on a model of its own, driven step by step without queue or threads. It learns if its
// configuration says so. One thread.
class SessionRunner {
 public:
  struct Step {
    Duration duration;
    int64_t chunks_closed = 0;
    double update_ms = 0;  // wall time, of `duration`
  };

  // `config`, `weights` and `backend` must outlive it. Sessions of up to `max_tokens` in steps of
  // up to `step_tokens`; RESOURCE_EXHAUSTED if they do not fit into memory.
  static absl::StatusOr<std::unique_ptr<SessionRunner>> Create(const ModelConfig& config,
                                                               const ModelWeights& weights,
                                                               Backend& backend,
                                                               int64_t step_tokens,
                                                               int64_t max_tokens);

  // Forgets everything: the next step is at position 0.
  void Restart();
  // Computes `tokens`, at least one.
  absl::StatusOr<Step> Read(absl::Span<const int32_t> tokens);
  // Computes the token drawn last (`first` at the first call) and draws the next, greedily.
  absl::StatusOr<Step> Decode(int32_t first);

  int64_t position() const { return position_; }

 private:
  SessionRunner(const ModelConfig& config, std::unique_ptr<CachePools> pools,
                std::unique_ptr<Model> model);
  absl::StatusOr<Step> Run(SequenceStep& step);
  void PrepareCache(const SequenceStep& step);
  void FinishCache(const SequenceStep& step);

  const ModelConfig& config_;
  const std::unique_ptr<CachePools> pools_;
  const std::unique_ptr<Model> model_;
  const ControlLog controls_{LearningControls{}};
  Sampler sampler_;

  std::unique_ptr<SessionCache> cache_;
  int64_t position_ = 0;
  std::vector<float> hidden_;   // of the last computed token
  std::vector<int32_t> drawn_;  // the next token to compute, if one was drawn
};

}  // namespace mneme

#endif  // MNEME_BENCH_SESSION_RUNNER_H_
