#include "engine/tiers/state_mover.h"

#include <utility>

#include "base/status_macros.h"

namespace mneme {

absl::StatusOr<std::unique_ptr<StateMover>> StateMover::Create(Backend& backend) {
  MNEME_ASSIGN_OR_RETURN(std::unique_ptr<Stream> stream, backend.CreateStream());
  return std::unique_ptr<StateMover>(new StateMover(std::move(stream)));
}

StateMover::StateMover(std::unique_ptr<Stream> stream)
    : stream_(std::move(stream)), thread_([this] { RunThread(); }) {}

StateMover::~StateMover() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void StateMover::Begin(Direction direction, std::vector<HostCopy> copies, Done done) {
  {
    std::lock_guard lock(mutex_);
    moves_.push_back({direction, std::move(copies), std::move(done)});
  }
  changed_.notify_one();
}

void StateMover::RunThread() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || !moves_.empty(); });
    if (moves_.empty()) return;
    const Move move = std::move(moves_.front());
    moves_.pop_front();
    lock.unlock();
    move.done(Run(move));
    lock.lock();
  }
}

absl::Status StateMover::Run(const Move& move) {
  for (const HostCopy& copy : move.copies) {
    if (move.direction == Direction::kToHost) {
      stream_->CopyToHost(copy.host, copy.device, copy.bytes);
    } else {
      stream_->CopyFromHost(copy.device, copy.host, copy.bytes);
    }
  }
  return stream_->Synchronize();
}

}  // namespace mneme
