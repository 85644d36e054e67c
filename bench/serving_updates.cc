// Updates that nobody waits for, beside a stream.

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "bench/serving_engine.h"
#include "bench/statistics.h"

namespace mneme {

namespace {

constexpr int64_t kSessions = 24;

// When no closed chunk waits any more.
absl::Status AwaitUpdates(ServingEngine& engine) {
  while (true) {
    MNEME_ASSIGN_OR_RETURN(const EngineLoad load, engine.Load());
    if (load.waiting_chunks == 0) return absl::OkStatus();
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

}  // namespace

// The stream learns nothing itself. Sessions read a chunk each, whose updates then run beside it;
// when all are done it goes on alone.
absl::Status MeasureUpdates(const ServingOptions& options, ServingReport& report) {
  MNEME_ASSIGN_OR_RETURN(const auto engine, ServingEngine::Create(options, options.target));
  if (engine->chunk() == 0) return absl::OkStatus();
  MNEME_RETURN_IF_ERROR(engine->GenerateAlone("alone", 8, /*freeze=*/true).status());
  const auto stream = engine->Generate("alone", 0, 16 * options.decode_tokens);
  std::vector<std::shared_ptr<EngineClient>> readers;
  for (int64_t i = 0; i < kSessions; ++i) {
    const std::string id = absl::StrFormat("u%d", i);
    MNEME_RETURN_IF_ERROR(engine->CreateSession(id));
    readers.push_back(engine->Ingest(id, engine->chunk()));
  }
  for (const auto& reader : readers) MNEME_RETURN_IF_ERROR(reader->Await());
  MNEME_ASSIGN_OR_RETURN(const EngineLoad load, engine->Load());
  engine->times().TakeMs();
  MNEME_RETURN_IF_ERROR(AwaitUpdates(*engine));
  const std::vector<double> beside = engine->times().TakeMs();
  stream->Cancel();
  stream->Await().IgnoreError();
  engine->times().TakeMs();
  MNEME_RETURN_IF_ERROR(engine->Generate("alone", 0, 4 * options.decode_tokens)->Await());
  report.idle_updates = load.waiting_chunks;
  report.beside_updates_mean_ms = Mean(beside);
  report.after_updates_mean_ms = Mean(engine->times().TakeMs());
  return absl::OkStatus();
}

}  // namespace mneme
