#ifndef MNEME_CLIENT_INTERRUPTER_H_
#define MNEME_CLIENT_INTERRUPTER_H_

#include <functional>
#include <mutex>
#include <set>

namespace grpc {
class ClientContext;
}

namespace mneme {

// Ends the calls under way when the user presses Ctrl-C. Thread-safe.
class Interrupter {
 public:
  // `when_idle` runs if no call is under way when Interrupt() comes.
  explicit Interrupter(std::function<void()> when_idle);

  // Between the two, Interrupt() cancels `context`, which is borrowed.
  void Add(grpc::ClientContext* context);
  void Remove(grpc::ClientContext* context);

  // Not for signal handlers: call it from an ordinary thread.
  void Interrupt();

  bool interrupted() const;

 private:
  const std::function<void()> when_idle_;
  mutable std::mutex mutex_;
  std::set<grpc::ClientContext*> contexts_;  // guarded by mutex_
  bool interrupted_ = false;                 // guarded by mutex_
};

}  // namespace mneme

#endif  // MNEME_CLIENT_INTERRUPTER_H_
