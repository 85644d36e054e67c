#include "engine/jobs/job_queues.h"

#include <algorithm>
#include <utility>

namespace mneme {

void JobQueues::Push(std::unique_ptr<Job> job) {
  const Session* session = &job->session();
  auto queue = std::find_if(queues_.begin(), queues_.end(),
                            [session](const Queue& q) { return q.session == session; });
  if (queue == queues_.end()) queue = queues_.insert(queue, Queue{.session = session});
  queue->jobs.push_back(std::move(job));
  ++size_;
}

void JobQueues::PushThrowAway(std::unique_ptr<Session> session, std::unique_ptr<Job> job) {
  Queue& queue = queues_.emplace_back();
  queue.session = session.get();
  queue.throw_away = std::move(session);
  queue.jobs.push_back(std::move(job));
  ++size_;
}

void JobQueues::End(const Job* job, const absl::Status& status) {
  EndWhere([&](const Job& other) {
    return &other == job ? std::optional<absl::Status>(status) : std::nullopt;
  });
}

void JobQueues::EndWhere(const std::function<std::optional<absl::Status>(const Job&)>& status_of) {
  for (Queue& queue : queues_) {
    for (size_t i = queue.jobs.size(); i-- > 0;) {
      const std::optional<absl::Status> status = status_of(*queue.jobs[i]);
      if (!status) continue;
      queue.jobs[i]->End(*status);
      queue.jobs.erase(queue.jobs.begin() + static_cast<std::ptrdiff_t>(i));
      --size_;
      ++ended_;
    }
  }
  queues_.remove_if([](const Queue& queue) { return queue.jobs.empty(); });
}

std::vector<Job*> JobQueues::Heads() const {
  std::vector<Job*> heads;
  for (const Queue& queue : queues_) heads.push_back(queue.jobs.front().get());
  std::sort(heads.begin(), heads.end(),
            [](const Job* a, const Job* b) { return a->arrival() < b->arrival(); });
  return heads;
}

void JobQueues::ForEach(const std::function<void(const Job&, bool)>& visit) const {
  for (const Queue& queue : queues_) {
    for (const auto& job : queue.jobs) visit(*job, job == queue.jobs.front());
  }
}

Job* JobQueues::Find(const SessionKey& session, const std::string& request_id) const {
  if (request_id.empty()) return nullptr;
  for (const Queue& queue : queues_) {
    if (!(queue.session->key() == session)) continue;
    for (const auto& job : queue.jobs) {
      if (job->header().request_id == request_id) return job.get();
    }
  }
  return nullptr;
}

const Job* JobQueues::Head(const Session& session) const {
  const auto queue = std::find_if(queues_.begin(), queues_.end(),
                                  [&session](const Queue& q) { return q.session == &session; });
  return queue == queues_.end() ? nullptr : queue->jobs.front().get();
}

std::vector<const Session*> JobQueues::OnlyRestoring() const {
  std::vector<const Session*> sessions;
  for (const Queue& queue : queues_) {
    if (queue.jobs.size() == 1 && queue.jobs.front()->restores()) sessions.push_back(queue.session);
  }
  return sessions;
}

absl::Time JobQueues::NextInterruption() const {
  absl::Time next = absl::InfiniteFuture();
  ForEach([&next](const Job& job, bool) { next = std::min(next, job.interruption_time()); });
  return next;
}

}  // namespace mneme
