#ifndef MNEME_SERVER_STALL_WATCH_H_
#define MNEME_SERVER_STALL_WATCH_H_

#include <grpcpp/alarm.h>
#include <grpcpp/server_context.h>

#include <cstdint>
#include <memory>
#include <mutex>

#include "absl/time/time.h"

namespace mneme {

// Cancels a call whose client lets a write, or the next message, wait for too long: the read or
// write under way then fails. Looks once in each limit, so it may take twice as long. Thread-safe.
class StallWatch : public std::enable_shared_from_this<StallWatch> {
 public:
  // `call` must live until Stop.
  StallWatch(grpc::CallbackServerContext& call, absl::Duration limit)
      : call_(&call), limit_(limit) {}

  // To be called before a read or write begins, and when it has ended.
  void Begin();
  void End();
  // Whether it was for this that the call was cancelled.
  bool stalled() const;
  // The call is over.
  void Stop();

 private:
  void SetAlarm();
  void Look();

  // What comes of cancelling may come at once, on this thread.
  mutable std::recursive_mutex mutex_;
  grpc::CallbackServerContext* call_;  // null: the call is over; guarded, as is all below
  const absl::Duration limit_;
  bool waiting_ = false;
  bool stalled_ = false;
  int64_t begun_ = 0;
  int64_t watched_ = 0;  // begun_ when the alarm was set; 0: it was not
  grpc::Alarm alarm_;
};

}  // namespace mneme

#endif  // MNEME_SERVER_STALL_WATCH_H_
