#include "bench/engine_clients.h"

#include <optional>
#include <variant>

namespace mneme {

void TokenTimes::OnNextToken(absl::Duration since_last_token) {
  const std::lock_guard lock(mutex_);
  times_ms_.push_back(absl::ToDoubleMilliseconds(since_last_token));
}

void TokenTimes::Count(int64_t bytes, absl::Duration time, Moves* moves) {
  const std::lock_guard lock(mutex_);
  ++moves->count;
  moves->bytes += bytes;
  moves->time += time;
}

Moves TokenTimes::parked() {
  const std::lock_guard lock(mutex_);
  return parked_;
}

Moves TokenTimes::unparked() {
  const std::lock_guard lock(mutex_);
  return unparked_;
}

std::vector<double> TokenTimes::TakeMs() {
  const std::lock_guard lock(mutex_);
  return std::exchange(times_ms_, {});
}

std::shared_ptr<EngineClient> EngineClient::Generate(Engine& engine, GenerateRequest request) {
  const std::shared_ptr<EngineClient> client(new EngineClient);
  client->Open();
  engine.Generate(std::move(request), client->channel_);
  return client;
}

std::shared_ptr<EngineClient> EngineClient::Ingest(Engine& engine, AppendRequest request,
                                                   std::vector<InputPiece> pieces) {
  const std::shared_ptr<EngineClient> client(new EngineClient);
  client->Open();
  for (InputPiece& piece : pieces) client->channel_->PushInput(std::move(piece));
  client->channel_->CloseInput();
  engine.Append(std::move(request), client->channel_);
  return client;
}

void EngineClient::Open() {
  channel_ = std::make_shared<RequestChannel>([weak = weak_from_this()] {
    if (const auto client = weak.lock()) client->React();
  });
}

void EngineClient::React() {
  while (const std::optional<RequestEvent> event = channel_->PopEvent()) {
    if (const auto* token = std::get_if<GeneratedToken>(&*event)) tokens_.push_back(token->id);
    if (const auto* end = std::get_if<RequestEnd>(&*event)) ended_.set_value(end->status);
  }
}

}  // namespace mneme
