#ifndef MNEME_TESTS_ENGINE_STATE_HARNESS_H_
#define MNEME_TESTS_ENGINE_STATE_HARNESS_H_

// Sessions' computed states alone, driven step by step on a golden fixture's model, and moved
// between device and host.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/model/model.h"
#include "engine/session/computed_state.h"
#include "engine/tiers/state_image.h"
#include "tests/engine/loop_harness.h"

namespace mneme {

// A session's state, what it computes, and what came of that.
struct Subject {
  Subject(CachePools& pools, const LearningControls& initial) : state(pools), controls(initial) {}

  ComputedState state;
  ControlLog controls;
  std::vector<int32_t> drawn;   // greedily, after each step
  std::vector<float> logprobs;  // of these
};

class StateHarness {
 public:
  // `fixture` names a golden fixture. Images are cut into slabs of `slab_bytes`.
  StateHarness(const std::string& fixture, BackendKind backend, int64_t slab_bytes);

  CachePools& pools() { return *pools_; }
  HostPool& host() { return *host_; }

  std::unique_ptr<Subject> Make(const LearningControls& controls = {});
  // Computes the next `rows` tokens, the same for every subject, in one step, after the first
  // `updates` that wait at least.
  void Advance(Subject& subject, int64_t rows, int64_t updates = 0);
  void AdvanceAll(Subject& subject, const std::vector<int64_t>& steps);

  // The state's image; the state stays as it is.
  StateImage Capture(Subject& subject);
  // Becomes what the image holds. The subject has computed nothing, or given all back.
  void Restore(Subject& subject, const StateImage& image);

  // ΔW of each TTT layer; empty where it is 0.
  std::vector<std::vector<float>> Deltas(Subject& subject);

 private:
  void Copy(Subject& subject, const StateImage& image, bool to_host);

  std::unique_ptr<Backend> backend_;
  ServedModel served_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<CachePools> pools_;
  std::shared_ptr<HostPool> host_;
  const std::vector<int32_t> tokens_;
  const SamplingParams greedy_{.temperature = 0};
};

// What is held is what is reserved, and nothing of it is left once all subjects are gone.
void ExpectNothingHeld(StateHarness& harness);

}  // namespace mneme

#endif  // MNEME_TESTS_ENGINE_STATE_HARNESS_H_
