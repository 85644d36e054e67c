#ifndef MNEME_ENGINE_JOBS_JOB_QUEUES_H_
#define MNEME_ENGINE_JOBS_JOB_QUEUES_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/jobs/job.h"
#include "engine/session/session.h"

namespace mneme {

// The requests in flight: one queue for each session that has any, worked on from its head. Whoever
// leaves a queue has got its terminal status. Engine thread only.
class JobQueues {
 public:
  // Puts `job` at the end of its session's queue.
  void Push(std::unique_ptr<Job> job);
  // Gives `job`, the only one of `session`, a queue that owns the session and ends with it.
  void PushThrowAway(std::unique_ptr<Session> session, std::unique_ptr<Job> job);

  // Ends a job with `status`.
  void End(const Job* job, const absl::Status& status);
  // Ends the jobs for which `status_of` has a status; in a queue the last come first.
  void EndWhere(const std::function<std::optional<absl::Status>(const Job&)>& status_of);

  // The first of each queue, in the order of their arrival.
  std::vector<Job*> Heads() const;
  // Every job, and whether it is the first of its queue.
  void ForEach(const std::function<void(const Job& job, bool head)>& visit) const;
  // The job of a request id in a session; null if there is none, or the id is empty.
  Job* Find(const SessionKey& session, const std::string& request_id) const;
  // The first job of the session's queue; null if it has none.
  const Job* Head(const Session& session) const;
  bool Has(const Session& session) const { return Head(session) != nullptr; }
  // The sessions whose only job brings them back.
  std::vector<const Session*> OnlyRestoring() const;

  int64_t size() const { return size_; }
  int64_t num_queues() const { return static_cast<int64_t>(queues_.size()); }
  // How many have left a queue so far.
  int64_t ended() const { return ended_; }
  // When the next job must end unless something happens before.
  absl::Time NextInterruption() const;

 private:
  struct Queue {
    const Session* session = nullptr;
    std::unique_ptr<Session> throw_away;  // null, or *session
    std::deque<std::unique_ptr<Job>> jobs;
  };

  std::list<Queue> queues_;  // none of them empty
  int64_t size_ = 0;
  int64_t ended_ = 0;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_JOBS_JOB_QUEUES_H_
