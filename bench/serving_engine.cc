#include "bench/serving_engine.h"

#include <algorithm>
#include <chrono>
#include <future>
#include <utility>

#include "base/status_macros.h"
#include "bench/bench_backend.h"
#include "bench/bench_model.h"
#include "bench/random_tokens.h"
#include "engine/session/cache_pools.h"

namespace mneme {

absl::StatusOr<std::unique_ptr<ServingEngine>> ServingEngine::Create(const ServingOptions& options,
                                                                     absl::Duration target,
                                                                     int64_t host_sessions) {
  const BenchOptions& model_options = options.model;
  std::unique_ptr<ServingEngine> bench(new ServingEngine);
  MNEME_ASSIGN_OR_RETURN(auto backend, MakeBenchBackend(model_options));
  MNEME_ASSIGN_OR_RETURN(BenchModel model, LoadBenchModel(model_options, *backend));
  bench->vocab_size_ = model.config.vocab_size;
  bench->context_ = options.context;
  bench->chunk_ = model.config.ttt ? model.config.ttt->chunk : 0;
  EngineOptions engine;
  if (host_sessions > 0) {
    const int64_t stream_tokens = options.context + 9 * options.decode_tokens + 64;
    const auto bytes = [&](int64_t tokens) {
      return CachePools::SessionBytes(model.config, *backend, tokens, model_options.step_tokens);
    };
    engine.session_tokens = stream_tokens;
    engine.cache_bytes = bytes(stream_tokens) + bytes(options.context + 1) * 21 / 20;
    engine.host_cache_bytes = host_sessions * bytes(stream_tokens);
  }
  ServedModel served = {.config = model.config, .weights = std::move(model.weights)};
  engine.target_inter_token = target;
  engine.max_step_tokens = model_options.step_tokens;
  if (model_options.cuda) engine.device_memory_fraction = 0.9;  // it is the benchmark's alone
  MNEME_ASSIGN_OR_RETURN(
      bench->engine_,
      Engine::Create(engine, std::move(backend), std::move(served), bench->clock_, bench->times_));
  return bench;
}

absl::Status ServingEngine::CreateSession(const std::string& id, bool freeze) {
  std::promise<absl::Status> created;
  // Random tokens are no text: without a limit what they teach would diverge in the end.
  engine_->CreateSession({"bench", id}, {.controls = {.clip_norm = 0.1F, .freeze = freeze}},
                         [&](const auto& info) { created.set_value(info.status()); });
  return created.get_future().get();
}

std::shared_ptr<EngineClient> ServingEngine::Generate(const std::string& id, int64_t input,
                                                      int64_t tokens) {
  GenerateRequest request;
  request.header.session = {"bench", id};
  if (input > 0) request.input = Random(input);
  request.sampling.temperature = 0;
  request.max_tokens = tokens;
  request.ignore_eos = true;
  return EngineClient::Generate(*engine_, std::move(request));
}

std::shared_ptr<EngineClient> ServingEngine::Ingest(const std::string& id, int64_t tokens) {
  constexpr int64_t kPieceTokens = 512;
  AppendRequest request;
  request.header.session = {"bench", id};
  std::vector<InputPiece> pieces;
  for (int64_t at = 0; at < tokens; at += kPieceTokens) {
    pieces.push_back(Random(std::min(kPieceTokens, tokens - at)));
  }
  return EngineClient::Ingest(*engine_, std::move(request), std::move(pieces));
}

absl::StatusOr<EngineLoad> ServingEngine::Load() {
  std::promise<absl::StatusOr<EngineLoad>> load;
  engine_->GetLoad([&](const auto& answer) { load.set_value(answer); });
  return load.get_future().get();
}

InputPiece ServingEngine::Random(int64_t tokens) {
  return {.ids = RandomTokens(tokens, vocab_size_, ++seed_)};
}

absl::Status ServingEngine::DeleteSession(const std::string& id) {
  std::promise<absl::Status> deleted;
  engine_->DeleteSession({"bench", id},
                         [&](const auto& info) { deleted.set_value(info.status()); });
  return deleted.get_future().get();
}

absl::StatusOr<std::vector<double>> ServingEngine::GenerateAlone(const std::string& id,
                                                                 int64_t tokens, bool freeze) {
  MNEME_RETURN_IF_ERROR(CreateSession(id, freeze));
  MNEME_RETURN_IF_ERROR(Generate(id, context_, 32)->Await());
  times_.TakeMs();
  MNEME_RETURN_IF_ERROR(Generate(id, 0, tokens)->Await());
  return times_.TakeMs();
}

void DocumentReader::Run() {
  while (!stopping_ && engine_.CreateSession(id_).ok()) {
    const auto document = engine_.Ingest(id_, tokens_);
    const std::future<absl::Status> end = document->end();
    while (!stopping_ && end.wait_for(std::chrono::milliseconds(5)) != std::future_status::ready) {
    }
    document->Cancel();
    end.wait();
    if (!engine_.DeleteSession(id_).ok()) return;
  }
}

}  // namespace mneme
