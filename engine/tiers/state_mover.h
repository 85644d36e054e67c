#ifndef MNEME_ENGINE_TIERS_STATE_MOVER_H_
#define MNEME_ENGINE_TIERS_STATE_MOVER_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/tiers/state_image.h"
#include "kernels/backend.h"

namespace mneme {

// Copies between device and host beside the engine's steps: on a stream and a thread of its own,
// one move after another. Thread-safe.
class StateMover {
 public:
  enum class Direction : uint8_t { kToHost, kToDevice };
  // OK, or why the device failed; then every later move fails too. On the mover's thread.
  using Done = std::function<void(absl::Status)>;

  static absl::StatusOr<std::unique_ptr<StateMover>> Create(Backend& backend);
  // Ends the moves that were begun first.
  ~StateMover();
  StateMover(const StateMover&) = delete;
  StateMover& operator=(const StateMover&) = delete;

  // All memory must stay, and that which is read stay untouched, until `done` is called. What the
  // device did to it before must have ended.
  void Begin(Direction direction, std::vector<HostCopy> copies, Done done);

 private:
  struct Move {
    Direction direction;
    std::vector<HostCopy> copies;
    Done done;
  };

  explicit StateMover(std::unique_ptr<Stream> stream);
  void RunThread();
  absl::Status Run(const Move& move);

  const std::unique_ptr<Stream> stream_;  // the thread's
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Move> moves_;  // guarded by mutex_, as is stopping_
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_TIERS_STATE_MOVER_H_
