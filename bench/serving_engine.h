#ifndef MNEME_BENCH_SERVING_ENGINE_H_
#define MNEME_BENCH_SERVING_ENGINE_H_

// An engine that is measured, in the same process as its clients.

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bench/engine_clients.h"
#include "bench/serving.h"
#include "engine/engine.h"

namespace mneme {

class ServingEngine {
 public:
  // Of the model of `options`; steps aim at `target`. `host_sessions`: if not 0, the device has
  // memory for a stream and one session more, and the host for so many. Statuses as Engine::Create.
  static absl::StatusOr<std::unique_ptr<ServingEngine>> Create(const ServingOptions& options,
                                                               absl::Duration target,
                                                               int64_t host_sessions = 0);

  absl::Status CreateSession(const std::string& id, bool freeze = false);
  absl::Status DeleteSession(const std::string& id);
  // Of random tokens.
  std::shared_ptr<EngineClient> Generate(const std::string& id, int64_t input, int64_t tokens);
  std::shared_ptr<EngineClient> Ingest(const std::string& id, int64_t tokens);
  absl::StatusOr<EngineLoad> Load();
  TokenTimes& times() { return times_; }
  // C; 0 without TTT.
  int64_t chunk() const { return chunk_; }

  // Creates a session, has it read the context, and generate; the times between its tokens, after a
  // warm-up, in milliseconds.
  absl::StatusOr<std::vector<double>> GenerateAlone(const std::string& id, int64_t tokens,
                                                    bool freeze = false);

 private:
  ServingEngine() = default;
  InputPiece Random(int64_t tokens);

  const Clock clock_;
  TokenTimes times_;
  int64_t vocab_size_ = 0, context_ = 0, chunk_ = 0;
  std::atomic<uint64_t> seed_ = 0;
  std::unique_ptr<Engine> engine_;
};

// Reads documents into sessions, one after another, from its construction to its destruction.
class DocumentReader {
 public:
  DocumentReader(ServingEngine& engine, std::string id, int64_t tokens)
      : engine_(engine), id_(std::move(id)), tokens_(tokens), thread_([this] { Run(); }) {}
  ~DocumentReader() {
    stopping_ = true;
    thread_.join();
  }

 private:
  void Run();

  ServingEngine& engine_;
  const std::string id_;
  const int64_t tokens_;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

// The parts of MeasureServing (bench/serving.h): each fills its own of the report.
absl::Status MeasureTogether(const ServingOptions& options, ServingReport& report);
absl::Status MeasureBeside(const ServingOptions& options, ServingReport& report);
absl::Status MeasureUpdates(const ServingOptions& options, ServingReport& report);
absl::Status MeasureMoves(const ServingOptions& options, ServingReport& report);

}  // namespace mneme

#endif  // MNEME_BENCH_SERVING_ENGINE_H_
