#include "server/lifecycle.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "base/check.h"

namespace mneme {
namespace {

// What a connection gets to take the last statuses off the wire, after every request has ended.
constexpr absl::Duration kFlushTime = absl::Seconds(2);

sigset_t StopSet() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

int OpenSignals() {
  const sigset_t set = StopSet();
  MNEME_CHECK(pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0);
  return signalfd(-1, &set, SFD_CLOEXEC);
}

}  // namespace

StopSignal::StopSignal() : signals_(OpenSignals()), failures_(eventfd(0, EFD_CLOEXEC)) {
  MNEME_CHECK(signals_ >= 0 && failures_ >= 0);
}

StopSignal::~StopSignal() {
  close(signals_);
  close(failures_);
}

void StopSignal::Fail(const absl::Status& failure) {
  const std::lock_guard lock(mutex_);
  if (!failure_.ok()) return;
  failure_ = failure;
  MNEME_CHECK(eventfd_write(failures_, 1) == 0);
}

absl::Status StopSignal::Wait() {
  pollfd sources[] = {{signals_, POLLIN, 0}, {failures_, POLLIN, 0}};
  while (poll(sources, 2, -1) < 0) MNEME_CHECK(errno == EINTR);
  if ((sources[0].revents & POLLIN) != 0) {
    signalfd_siginfo taken;
    MNEME_CHECK(read(signals_, &taken, sizeof(taken)) == sizeof(taken));
  }
  const sigset_t set = StopSet();
  MNEME_CHECK(pthread_sigmask(SIG_UNBLOCK, &set, nullptr) == 0);
  const std::lock_guard lock(mutex_);
  return failure_;
}

int ServeUntilStopped(StopSignal& stop, Server& server, Engine& engine, absl::Duration grace,
                      const Logger& logger) {
  engine.SetFailureCallback([&stop](const absl::Status& why) { stop.Fail(why); });
  if (const absl::Status health = engine.health(); !health.ok()) stop.Fail(health);
  const absl::Status failure = stop.Wait();
  if (failure.ok()) {
    logger.Info("stopping", {{"grace_seconds", absl::ToDoubleSeconds(grace)}});
  } else {
    logger.Error("engine failed", {{"status", failure.ToString()}});
  }
  server.SetServing(false);
  engine.Drain(failure.ok() ? grace : absl::ZeroDuration());
  server.Shutdown(kFlushTime);
  logger.Info("stopped");
  return failure.ok() ? 0 : 1;
}

}  // namespace mneme
