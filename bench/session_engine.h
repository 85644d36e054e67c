#ifndef MNEME_BENCH_SESSION_ENGINE_H_
#define MNEME_BENCH_SESSION_ENGINE_H_

// The engine with sessions that lie in a directory, for benchmarks.

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bench/engine_clients.h"
#include "bench/options.h"
#include "engine/clock.h"
#include "engine/engine.h"
#include "storage/log_writer.h"

namespace mneme {

struct SessionEngineOptions {
  std::filesystem::path model_dir;
  int threads = 0;                 // as BenchOptions
  std::filesystem::path data_dir;  // made if it is not there
  Durability durability = Durability::kSync;
  bool checkpoint_kv = true;
  uint64_t fingerprint = 1;  // checkpoints of another are not restored from
};

// Sessions of it learn, and get checkpoints when they are asked for and not otherwise. Any thread.
class SessionEngine {
 public:
  // The sessions in the directory are there, parked. Statuses as LoadBenchModel, SessionStore::Open
  // and Engine::Create.
  static absl::StatusOr<std::unique_ptr<SessionEngine>> Open(const SessionEngineOptions& options);

  // How long it took to open the store and list its sessions, and to create the engine with them;
  // the model was loaded before.
  double listing_ms() const { return listing_ms_; }
  double engine_ms() const { return engine_ms_; }
  int64_t listed() const { return listed_; }
  int64_t vocab_size() const { return engine_->config().vocab_size; }

  // INVALID_ARGUMENT if no session can have so many tokens.
  absl::Status CheckLength(int64_t tokens) const;

  // Return when all of them are durable.
  absl::Status CreateSessions(const std::vector<std::string>& ids);
  absl::Status Checkpoint(const std::vector<std::string>& ids);

  // Greedily, whatever end of text comes. Without `learn` it leaves no trace in the session.
  std::shared_ptr<EngineClient> Generate(const std::string& id, std::vector<int32_t> input,
                                         int64_t tokens, bool learn = true);
  std::shared_ptr<EngineClient> Append(const std::string& id, const std::vector<int32_t>& tokens);

  // Tokens that were restored from checkpoints so far, of all sessions.
  int64_t checkpoint_tokens() const { return restores_.checkpoint_tokens; }

 private:
  struct Restores final : StatsSink {
    void OnRestoring(int64_t from_checkpoint, int64_t /*tokens*/) override {
      checkpoint_tokens += from_checkpoint;
    }
    std::atomic<int64_t> checkpoint_tokens = 0;
  };

  SessionEngine() = default;

  const Clock clock_;
  Restores restores_;
  double listing_ms_ = 0, engine_ms_ = 0;
  int64_t listed_ = 0;
  std::unique_ptr<Engine> engine_;
};

}  // namespace mneme

#endif  // MNEME_BENCH_SESSION_ENGINE_H_
