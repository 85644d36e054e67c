#ifndef MNEME_TESTS_ENGINE_LOOP_HARNESS_H_
#define MNEME_TESTS_ENGINE_LOOP_HARNESS_H_

// Drives an EngineLoop in the test's own thread, step by step, on a model directory.

#include <condition_variable>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/channel.h"
#include "engine/error.h"
#include "engine/loading/safetensors.h"
#include "engine/loop/engine_loop.h"
#include "engine/loop/intake.h"
#include "gtest/gtest.h"
#include "kernels/backend.h"
#include "tests/engine/backends.h"

namespace mneme {

// A clock that moves when told to.
class FakeClock : public Clock {
 public:
  absl::Time Now() const override { return now_; }
  void Advance(absl::Duration duration) { now_ += duration; }

 private:
  absl::Time now_ = absl::UnixEpoch();
};

// A request on its way, with all events that have come so far.
struct Call {
  std::shared_ptr<RequestChannel> channel;
  std::vector<AppendProgress> progress;
  std::vector<GeneratedToken> tokens;
  std::optional<Finished> finished;
  std::optional<absl::Status> end;
  int ends = 0;

  // Takes the channel's events.
  void Read();
  std::vector<float> AppendLogProbs() const;
  std::vector<int32_t> TokenIds() const;
  std::string Text() const;
};

struct HarnessOptions {
  EngineOptions engine = {.max_step_tokens = 64, .cache_bytes = 64 << 20};
  BackendKind backend = BackendKind::kCpuFloat32;  // one that there is here
  int cpu_threads = 1;                             // small models gain nothing from more; 0: all
  bool with_tokenizer = false;
  StatsSink* stats = nullptr;  // null: nobody is told
  bool warm_up = false;
  // Puts something between the engine and the backend.
  std::function<std::unique_ptr<Backend>(std::unique_ptr<Backend>)> wrap_backend;
  // Where sessions are kept; null: nowhere.
  std::function<SessionStore::Opened()> open_store;
};

// What stands for the fingerprint of a directory's model.
inline uint64_t TestFingerprint(const std::filesystem::path& model_dir) {
  return std::hash<std::string>()(model_dir.string());
}

// The model of a directory, packed for `backend`.
ServedModel LoadServedModel(const std::filesystem::path& model_dir, bool with_tokenizer,
                            Backend& backend);

class LoopHarness {
 public:
  explicit LoopHarness(const std::filesystem::path& model_dir, const HarnessOptions& options = {});

  EngineLoop& loop() { return *loop_; }
  FakeClock& clock() { return clock_; }
  const ServedModel& model() const { return model_; }

  // Creates session `id` of the tenant "test".
  void Create(const std::string& id, const LearningControls& controls = {});
  void SetControls(const std::string& id, const LearningControls& controls);
  SessionInfo Info(const std::string& id);

  // Begins a request; its input is complete for the first two.
  std::unique_ptr<Call> StartAppend(const std::string& id, std::vector<int32_t> tokens,
                                    bool logprobs = false, const std::string& request_id = "");
  std::unique_ptr<Call> StartGenerate(const std::string& id, GenerateRequest request);
  std::unique_ptr<Call> StartAppendStream(const std::string& id, AppendRequest request);
  // One step, after the moves that it must wait for; false if nothing could be done. Holds the
  // memory invariant of DESIGN §2.9: bytes reserved ≥ bytes held, equal at rest.
  bool Step();
  // Steps until the generation has sent `count` tokens.
  void StepUntilTokens(Call* call, size_t count);
  // If the disk has something under way, waits until it has done it, at least in part, or Wake is
  // called; else false.
  bool WaitForDisk();
  void Wake();  // any thread
  // Runs steps until nothing more can be done, nor is under way.
  void RunAll(const std::vector<Call*>& calls);

  // Whole requests.
  std::unique_ptr<Call> Append(const std::string& id, std::vector<int32_t> tokens,
                               bool logprobs = false, const std::string& request_id = "");
  std::unique_ptr<Call> Generate(const std::string& id, GenerateRequest request);

  // ΔW [d, f] of a session's TTT layer (counted among the TTT layers); empty while it is 0.
  std::vector<float> Delta(const std::string& id, int64_t ttt_layer);

 private:
  static RequestHeader Header(const std::string& id, const std::string& request_id);

  std::mutex mutex_;
  std::condition_variable woken_;
  bool wake_ = false;  // guarded by mutex_

  FakeClock clock_;
  StatsSink stats_;
  Intake moved_{0};  // is notified when a session's state has moved
  EngineOptions options_;
  std::unique_ptr<Backend> backend_;
  ServedModel model_;
  std::unique_ptr<EngineLoop> loop_;
};

// A golden fixture's expectations.
class Golden {
 public:
  explicit Golden(const std::string& name);

  const std::filesystem::path& dir() const { return dir_; }
  const std::vector<int32_t>& tokens() const { return tokens_; }
  const std::vector<int32_t>& greedy() const { return greedy_; }
  // ln softmax of row p − 1 of tensor `logits` at token p; NaN for p = 0.
  std::vector<float> LogProbs(const std::string& logits) const;
  std::vector<float> Floats(const std::string& name) const;

 private:
  std::vector<int32_t> Ints(const std::string& name) const;

  std::filesystem::path dir_;
  SafetensorsFile expected_;
  std::vector<int32_t> tokens_, greedy_;
};

const std::vector<std::string>& GoldenNames();
// The bundled model, with head size 64 and chunks of 64.
inline constexpr char kDemoModel[] = "mneme-demo";
// The directory of a golden fixture's model, or of the bundled one.
std::filesystem::path ModelDir(const std::string& name);

// The call has ended, exactly once, with `code`; an error has `reason`.
testing::AssertionResult EndedWith(const Call& call, absl::StatusCode code,
                                   ErrorReason reason = ErrorReason::kUnspecified);
testing::AssertionResult EndedOk(const Call& call);

// Both have ended, with the same tokens, as probable up to `tolerance`, up to the first place where
// the two best that were expected are nearer to one another than that. Both have log-probabilities
// with at least 2 alternatives.
void ExpectSameTokens(const Call& actual, const Call& expected, double tolerance);

// `count` tokens in [0, vocab_size), the same for the same seed.
std::vector<int32_t> RandomTokens(size_t count, uint32_t seed, int32_t vocab_size = 320);

// Greedy, ignoring end-of-text.
GenerateRequest GreedyRequest(int64_t max_tokens, std::vector<int32_t> input = {});

// Largest difference; NaN must meet NaN.
double MaxDifference(const std::vector<float>& a, const std::vector<float>& b);
// Of the numbers of both, NaN left out.
double RootMeanSquareDifference(const std::vector<float>& a, const std::vector<float>& b);
// ‖a − b‖ / ‖b‖.
double RelativeDifference(const std::vector<float>& a, const std::vector<float>& b);

}  // namespace mneme

#endif  // MNEME_TESTS_ENGINE_LOOP_HARNESS_H_
