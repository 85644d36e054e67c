#ifndef MNEME_BENCH_WORK_H_
#define MNEME_BENCH_WORK_H_

#include <cstdint>

#include "bench/ceilings.h"
#include "engine/loading/config.h"
#include "engine/loading/weights.h"

namespace mneme {

// The least that a piece of work must move and compute, whatever the implementation.
struct Work {
  double bytes = 0;  // read from or written to device memory once
  double flops = 0;

  // Milliseconds at the device's best: the larger of the two times.
  double FloorMs(const Ceilings& ceilings) const;
};

// Counts the work of a model. Bytes of keys and values and of ΔW as DownProject reads it are the
// backend's.
class WorkCounter {
 public:
  // `delta_read_bytes`: of one layer's ΔW as it is read; `config` and `weights` must outlive it.
  WorkCounter(const ModelConfig& config, const ModelWeights& weights, int64_t kv_element_bytes,
              int64_t delta_read_bytes);

  // One token of each of `streams` sessions at position `context`: weights once, every session's
  // keys and values once, with `learning` also every session's ΔW once.
  Work DecodeStep(int64_t streams, int64_t context, bool learning) const;
  // Positions 0 to `tokens` of one session in steps of `step_tokens` rows, no logits: each step
  // reads the weights once. With `learning`, each closed chunk adds the products of its update and
  // reads and writes ΔW once; W_down + ΔW counts as one product, as it can be merged.
  Work Prefill(int64_t tokens, int64_t step_tokens, bool learning) const;

 private:
  const ModelConfig& config_;
  double layer_weight_bytes_ = 0;  // of all layers
  double head_bytes_ = 0;
  double layer_parameters_ = 0;
  double head_parameters_ = 0;
  double kv_token_bytes_ = 0;  // of all layers
  double delta_bytes_ = 0;     // of all TTT layers
};

}  // namespace mneme

#endif  // MNEME_BENCH_WORK_H_
