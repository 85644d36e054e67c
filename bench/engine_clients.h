#ifndef MNEME_BENCH_ENGINE_CLIENTS_H_
#define MNEME_BENCH_ENGINE_CLIENTS_H_

// Clients of an engine in the same process, who read all that comes at once.

#include <atomic>
#include <future>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/engine.h"

namespace mneme {

// States that left the device, or came back.
struct Moves {
  int64_t count = 0, bytes = 0;
  absl::Duration time;  // of all, one after another
};

// The times between tokens, and the tokens of input, as the engine counts them. Thread-safe.
class TokenTimes final : public StatsSink {
 public:
  void OnNextToken(absl::Duration since_last_token) override;
  void OnTokensIn(int64_t tokens) override { tokens_in_ += tokens; }
  void OnParked(int64_t bytes, absl::Duration time) override { Count(bytes, time, &parked_); }
  void OnUnparked(int64_t bytes, absl::Duration time) override { Count(bytes, time, &unparked_); }

  // Those since the last call, in milliseconds.
  std::vector<double> TakeMs();
  int64_t tokens_in() const { return tokens_in_; }
  Moves parked();
  Moves unparked();

 private:
  void Count(int64_t bytes, absl::Duration time, Moves* moves);

  std::mutex mutex_;
  std::vector<double> times_ms_;
  Moves parked_, unparked_;
  std::atomic<int64_t> tokens_in_ = 0;
};

// One request.
class EngineClient : public std::enable_shared_from_this<EngineClient> {
 public:
  static std::shared_ptr<EngineClient> Generate(Engine& engine, GenerateRequest request);
  // Appends `pieces`.
  static std::shared_ptr<EngineClient> Ingest(Engine& engine, AppendRequest request,
                                              std::vector<InputPiece> pieces);

  void Cancel() { channel_->Cancel(absl::CancelledError("enough")); }
  // What it generated; once it has ended.
  const std::vector<int32_t>& tokens() const { return tokens_; }
  // Of these, one, once.
  absl::Status Await() { return end().get(); }
  std::future<absl::Status> end() { return ended_.get_future(); }

 private:
  EngineClient() = default;
  void Open();
  // On the engine's thread.
  void React();

  std::shared_ptr<RequestChannel> channel_;
  std::vector<int32_t> tokens_;
  std::promise<absl::Status> ended_;
};

}  // namespace mneme

#endif  // MNEME_BENCH_ENGINE_CLIENTS_H_
