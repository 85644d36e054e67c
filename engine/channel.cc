#include "engine/channel.h"

#include <utility>

namespace mneme {

RequestChannel::RequestChannel(Notify on_client_ready)
    : on_client_ready_(std::move(on_client_ready)) {}

void RequestChannel::Call(const Notify& notify) {
  if (notify) notify();
}

void RequestChannel::PushInput(InputPiece piece) {
  {
    std::lock_guard lock(mutex_);
    input_tokens_ += static_cast<int64_t>(piece.ids.size());
    input_.push_back(std::move(piece));
  }
  Call(on_engine_ready_);
}

void RequestChannel::CloseInput() {
  {
    std::lock_guard lock(mutex_);
    input_closed_ = true;
  }
  Call(on_engine_ready_);
}

void RequestChannel::Cancel(const absl::Status& status) {
  {
    std::lock_guard lock(mutex_);
    if (!cancelled_.has_value()) cancelled_ = status;
  }
  Call(on_engine_ready_);
}

std::optional<RequestEvent> RequestChannel::PopEvent() {
  std::optional<RequestEvent> event;
  bool had_been_full = false;
  {
    std::lock_guard lock(mutex_);
    if (events_.empty()) return std::nullopt;
    had_been_full = events_.size() >= kMaxQueuedEvents;
    event = std::move(events_.front());
    events_.pop_front();
  }
  if (had_been_full) Call(on_engine_ready_);
  return event;
}

std::optional<absl::Status> RequestChannel::end() const {
  std::lock_guard lock(mutex_);
  return end_;
}

bool RequestChannel::WantsInput() const {
  std::lock_guard lock(mutex_);
  return !input_closed_ && input_tokens_ < kMaxQueuedInputTokens;
}

void RequestChannel::SetEngineNotify(Notify on_engine_ready) {
  on_engine_ready_ = std::move(on_engine_ready);
}

std::optional<InputPiece> RequestChannel::PopInput() {
  std::optional<InputPiece> piece;
  {
    std::lock_guard lock(mutex_);
    if (input_.empty()) return std::nullopt;
    piece = std::move(input_.front());
    input_.pop_front();
    input_tokens_ -= static_cast<int64_t>(piece->ids.size());
  }
  Call(on_client_ready_);
  return piece;
}

bool RequestChannel::InputEnded() const {
  std::lock_guard lock(mutex_);
  return input_closed_ && input_.empty();
}

int64_t RequestChannel::queued_input_tokens() const {
  std::lock_guard lock(mutex_);
  return input_tokens_;
}

void RequestChannel::PushEvent(RequestEvent event) {
  {
    std::lock_guard lock(mutex_);
    if (const auto* end = std::get_if<RequestEnd>(&event)) end_ = end->status;
    events_.push_back(std::move(event));
  }
  Call(on_client_ready_);
}

bool RequestChannel::EventsFull() const {
  std::lock_guard lock(mutex_);
  return events_.size() >= kMaxQueuedEvents;
}

std::optional<absl::Status> RequestChannel::cancelled() const {
  std::lock_guard lock(mutex_);
  return cancelled_;
}

}  // namespace mneme
