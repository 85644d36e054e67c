#ifndef MNEME_SERVER_LIFECYCLE_H_
#define MNEME_SERVER_LIFECYCLE_H_

// From "ready" to the exit code: waits for a signal or a failure, and ends the server in order.

#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/engine.h"
#include "server/logging.h"
#include "server/server.h"

namespace mneme {

// Why the server is to stop: SIGTERM, SIGINT, or a failure.
class StopSignal {
 public:
  // Blocks SIGTERM and SIGINT in this thread and those it starts from now on: make it before any
  // other thread. One in a process.
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  // Makes Wait return `failure`. Any thread; the first call counts.
  void Fail(const absl::Status& failure);

  // Blocks until a signal comes (OK) or something failed (why). From its return on the signals have
  // their default effect, in the calling thread: a second one ends the process at once.
  absl::Status Wait();

 private:
  const int signals_;   // signalfd of SIGTERM and SIGINT
  const int failures_;  // eventfd, readable once failure_ is set
  std::mutex mutex_;
  absl::Status failure_;
};

// Serves until `stop`; then health turns NOT_SERVING, requests in flight get `grace` to end, and
// the server shuts down. Returns the exit code: 0 after a signal, 1 after a failure.
int ServeUntilStopped(StopSignal& stop, Server& server, Engine& engine, absl::Duration grace,
                      const Logger& logger);

}  // namespace mneme

#endif  // MNEME_SERVER_LIFECYCLE_H_
