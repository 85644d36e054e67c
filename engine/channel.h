#ifndef MNEME_ENGINE_CHANNEL_H_
#define MNEME_ENGINE_CHANNEL_H_

// The two bounded queues between one request's client and the engine: input pieces towards the
// engine, events towards the client. A client that reads slowly fills its event queue and so pauses
// its own request; one that sends fast finds its input queue full and stops reading its stream.

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>

#include "engine/request.h"

namespace mneme {

class RequestChannel {
 public:
  // The bounds. Input is bounded in tokens; a single piece may exceed it, the next one waits.
  static constexpr int64_t kMaxQueuedInputTokens = 8192;
  static constexpr size_t kMaxQueuedEvents = 256;

  // Called, on whichever thread caused it and outside the channel's lock, when the other side has
  // something to do. Must not block. May be called more often than needed.
  using Notify = std::function<void()>;

  // `on_client_ready`: an event has come, or input is wanted again.
  explicit RequestChannel(Notify on_client_ready);

  // --- Client's side; thread-safe. ---
  void PushInput(InputPiece piece);
  void CloseInput();
  // The request ends at the next step boundary, with `status` (CANCELLED, …).
  void Cancel(const absl::Status& status);
  // The next event; nothing if none waits.
  std::optional<RequestEvent> PopEvent();
  // How the request has ended, though events may still wait; nothing before.
  std::optional<absl::Status> end() const;
  // Whether the input queue has room for another piece.
  bool WantsInput() const;

  // --- Engine's side; the engine thread only, but for SetEngineNotify (before it is accepted). ---
  void SetEngineNotify(Notify on_engine_ready);
  std::optional<InputPiece> PopInput();
  // No piece is left and none will come.
  bool InputEnded() const;
  int64_t queued_input_tokens() const;
  void PushEvent(RequestEvent event);
  // The client has fallen behind: the request should not produce more for now.
  bool EventsFull() const;
  std::optional<absl::Status> cancelled() const;

 private:
  static void Call(const Notify& notify);

  const Notify on_client_ready_;
  Notify on_engine_ready_;

  mutable std::mutex mutex_;
  std::deque<InputPiece> input_;
  int64_t input_tokens_ = 0;
  bool input_closed_ = false;
  std::deque<RequestEvent> events_;
  std::optional<absl::Status> end_;
  std::optional<absl::Status> cancelled_;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_CHANNEL_H_
