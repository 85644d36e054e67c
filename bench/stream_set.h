#ifndef MNEME_BENCH_STREAM_SET_H_
#define MNEME_BENCH_STREAM_SET_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "bench/stopwatch.h"
#include "engine/model/model.h"
#include "engine/session/computed_state.h"
#include "kernels/sampling.h"

namespace mneme {

// Sessions on a model of their own, driven step by step without queue or threads. They learn if the
// configuration says so. One thread.
class StreamSet {
 public:
  // What one or more steps took and did.
  struct Step {
    Duration duration;
    int64_t chunks_closed = 0;
    int64_t updates_skipped = 0;

    Step& operator+=(const Step& other) {
      duration += other.duration;
      chunks_closed += other.chunks_closed;
      updates_skipped += other.updates_skipped;
      return *this;
    }
  };

  // `config`, `weights` and `backend` must outlive it. `streams` sessions of up to `max_tokens`, in
  // steps of up to `step_tokens` rows; RESOURCE_EXHAUSTED if they do not fit into memory.
  static absl::StatusOr<std::unique_ptr<StreamSet>> Create(const ModelConfig& config,
                                                           const ModelWeights& weights,
                                                           Backend& backend, int64_t streams,
                                                           int64_t step_tokens, int64_t max_tokens);

  // Forgets everything: every session is at position 0.
  void Restart();
  // Session `stream` reads `tokens`, at least one, in steps of up to `step_tokens`, and learns the
  // chunks that they close. `logprobs`:
  // null, or where the log-probability of each is added, NaN for a session's first.
  absl::StatusOr<Step> Read(int64_t stream, absl::Span<const int32_t> tokens,
                            std::vector<float>* logprobs = nullptr);
  // Every session computes the token it drew last (`first` at first) and draws its next, greedily.
  // FAILED_PRECONDITION if a session's logits are not finite.
  absl::StatusOr<Step> Decode(int32_t first);

  int64_t position(int64_t stream) const {
    return sessions_[static_cast<size_t>(stream)].state->computed();
  }

 private:
  struct Session {
    std::unique_ptr<ComputedState> state;
    std::optional<int32_t> drawn;  // the next token to compute
  };

  StreamSet(const ModelConfig& config, std::unique_ptr<CachePools> pools,
            std::unique_ptr<Model> model, int64_t streams, int64_t step_tokens, int64_t max_tokens);
  // The step of `tokens`, with room for it in the session's cache.
  SequenceStep MakeStep(Session& session, std::vector<int32_t> tokens);
  // Learns what the session's last step closed.
  absl::StatusOr<Step> LearnWaiting(Session& session);
  absl::StatusOr<Step> ReadStep(Session& session, absl::Span<const int32_t> tokens,
                                std::vector<float>* logprobs);
  absl::StatusOr<Step> Run(absl::Span<SequenceStep> steps);

  const ModelConfig& config_;
  const int64_t step_tokens_, max_tokens_;
  const std::unique_ptr<CachePools> pools_;
  const std::unique_ptr<Model> model_;
  const ControlLog controls_{LearningControls{}};
  const SamplingParams greedy_{.temperature = 0};
  std::vector<Session> sessions_;
};

}  // namespace mneme

#endif  // MNEME_BENCH_STREAM_SET_H_
