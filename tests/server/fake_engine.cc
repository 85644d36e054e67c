#include "tests/server/fake_engine.h"

#include <utility>

namespace mneme {
namespace {

uint64_t PositionOf(const HistoryPoint& point, const SessionInfo& info) {
  if (const auto* name = std::get_if<std::string>(&point)) {
    return static_cast<uint64_t>(info.checkpoints.at(*name));
  }
  const auto* position = std::get_if<int64_t>(&point);
  return position == nullptr ? info.position : static_cast<uint64_t>(*position);
}

}  // namespace

FakeEngine::FakeEngine() {
  config_.vocab_size = 100;
  config_.hidden_size = 8;
  config_.intermediate_size = 16;
  config_.num_layers = 2;
  config_.num_heads = 2;
  config_.num_kv_heads = 1;
  config_.head_dim = 4;
  config_.max_position_embeddings = 4096;
  config_.windows = {0, 64};
  config_.ttt.emplace();
  config_.ttt->layers = {1};
  config_.ttt->chunk = 16;
}

AcceptedRequest FakeEngine::NextRequest() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !requests_.empty(); });
  AcceptedRequest request = std::move(requests_.front());
  requests_.pop_front();
  return request;
}

void FakeEngine::Await(const std::function<bool()>& condition) {
  for (;;) {
    const int seen = notifications();
    if (condition()) return;
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return notifications_ != seen; });
  }
}

int FakeEngine::notifications() const {
  const std::lock_guard lock(mutex_);
  return notifications_;
}

void FakeEngine::RefuseRequests(const absl::Status& status) {
  const std::lock_guard lock(mutex_);
  refusal_ = status;
}

void FakeEngine::Fail(const absl::Status& status) {
  std::function<void(absl::Status)> on_failure;
  {
    const std::lock_guard lock(mutex_);
    health_ = status;
    on_failure = on_failure_;
  }
  if (on_failure) on_failure(status);
}

absl::StatusOr<SessionInfo*> FakeEngine::Find(const SessionKey& key) {
  const auto found = sessions_.find(key);
  if (found != sessions_.end()) return &found->second;
  return MakeError(absl::StatusCode::kNotFound, "no session " + key.id,
                   {.reason = ErrorReason::kSessionNotFound});
}

void FakeEngine::CreateSession(SessionKey key, SessionOptions options, Done<SessionInfo> done) {
  if (key.id.empty()) key.id = "drawn";
  SessionInfo info;
  info.key = key;
  info.options = std::move(options);
  info.create_time = absl::FromUnixSeconds(1000);
  info.last_used_time = info.create_time;
  bool added = false;
  {
    const std::lock_guard lock(mutex_);
    added = sessions_.emplace(key, info).second;
  }
  if (added) return done(info);
  done(MakeError(absl::StatusCode::kAlreadyExists, "session exists",
                 {.reason = ErrorReason::kSessionExists}));
}

void FakeEngine::GetSession(SessionKey key, Done<SessionInfo> done) {
  std::unique_lock lock(mutex_);
  const auto found = Find(key);
  const absl::StatusOr<SessionInfo> info =
      found.ok() ? absl::StatusOr<SessionInfo>(**found) : found.status();
  lock.unlock();
  done(info);
}

void FakeEngine::ListSessions(std::string tenant, std::string after, int limit,
                              Done<SessionPage> done) {
  SessionPage page;
  {
    const std::lock_guard lock(mutex_);
    auto it = sessions_.upper_bound({tenant, after});
    for (; it != sessions_.end() && it->first.tenant == tenant; ++it) {
      if (static_cast<int>(page.sessions.size()) == limit) {
        page.next_after = page.sessions.back().key.id;
        break;
      }
      page.sessions.push_back(it->second);
    }
  }
  done(page);
}

void FakeEngine::UpdateSession(SessionKey key, SessionUpdate update, Done<SessionInfo> done) {
  std::unique_lock lock(mutex_);
  const auto found = Find(key);
  if (found.ok()) {
    SessionOptions& options = (*found)->options;
    options.controls = update.controls.AppliedTo(options.controls);
    if (update.labels) options.labels = *update.labels;
    if (update.ttl) options.ttl = *update.ttl;
  }
  const absl::StatusOr<SessionInfo> info =
      found.ok() ? absl::StatusOr<SessionInfo>(**found) : found.status();
  lock.unlock();
  done(info);
}

void FakeEngine::ForkSession(SessionKey key, std::string new_id, HistoryPoint at,
                             GaveUp /*gave_up*/, Done<SessionInfo> done) {
  std::unique_lock lock(mutex_);
  const auto found = Find(key);
  if (!found.ok()) return done(found.status());
  SessionInfo fork = **found;
  fork.key.id = new_id;
  fork.position = PositionOf(at, fork);
  sessions_[fork.key] = fork;
  lock.unlock();
  done(fork);
}

void FakeEngine::RollbackSession(SessionKey key, HistoryPoint to, GaveUp /*gave_up*/,
                                 Done<SessionInfo> done) {
  std::unique_lock lock(mutex_);
  const auto found = Find(key);
  if (!found.ok()) return done(found.status());
  (*found)->position = PositionOf(to, **found);
  const SessionInfo info = **found;
  lock.unlock();
  done(info);
}

int FakeEngine::archives_lent() const {
  const std::lock_guard lock(mutex_);
  return archives_lent_;
}

std::shared_ptr<ArchiveFile> FakeEngine::LendArchive() {
  const std::lock_guard lock(mutex_);
  if (archive_ != nullptr) ++archives_lent_;
  return archive_;
}

void FakeEngine::ExportSession(SessionKey, Done<SessionArchive> done) {
  const std::shared_ptr<ArchiveFile> file = LendArchive();
  if (file == nullptr) return done(absl::FailedPreconditionError("no archives"));
  done(SessionArchive{.id = "id", .size_bytes = file->size_bytes(), .file = file});
}

void FakeEngine::BeginImport(SessionKey, ImportStart, Done<std::shared_ptr<ArchiveFile>> done) {
  std::shared_ptr<ArchiveFile> file = LendArchive();
  if (file == nullptr) return done(absl::FailedPreconditionError("no archives"));
  done(std::move(file));
}

void FakeEngine::ImportSession(SessionKey, std::shared_ptr<ArchiveFile>, Done<SessionInfo> done) {
  done(absl::FailedPreconditionError("no archives"));
}

void FakeEngine::CheckpointSession(SessionKey key, std::string name, GaveUp /*gave_up*/,
                                   Done<CheckpointSummary> done) {
  std::unique_lock lock(mutex_);
  const auto found = Find(key);
  if (!found.ok()) return done(found.status());
  if (!name.empty()) (*found)->checkpoints[name] = static_cast<int64_t>((*found)->position);
  const SessionInfo info = **found;
  lock.unlock();
  done(CheckpointSummary{info.position, info.version, 4096, info.position});
}

void FakeEngine::DeleteSession(SessionKey key, Done<SessionInfo> done) {
  std::unique_lock lock(mutex_);
  const auto found = Find(key);
  const absl::StatusOr<SessionInfo> info =
      found.ok() ? absl::StatusOr<SessionInfo>(**found) : found.status();
  sessions_.erase(key);
  lock.unlock();
  done(info);
}

void FakeEngine::Accept(AcceptedRequest request) {
  absl::Status refusal;
  {
    const std::lock_guard lock(mutex_);
    refusal = refusal_;
  }
  if (!refusal.ok()) return request.channel->PushEvent(RequestEnd{refusal});
  request.channel->SetEngineNotify([this] {
    const std::lock_guard lock(mutex_);
    ++notifications_;
    changed_.notify_all();
  });
  const std::lock_guard lock(mutex_);
  channels_.push_back(request.channel);
  requests_.push_back(std::move(request));
  changed_.notify_all();
}

void FakeEngine::Append(AppendRequest request, std::shared_ptr<RequestChannel> channel) {
  Accept({std::move(request), std::nullopt, std::move(channel)});
}

void FakeEngine::Generate(GenerateRequest request, std::shared_ptr<RequestChannel> channel) {
  Accept({std::nullopt, std::move(request), std::move(channel)});
}

void FakeEngine::Cancel(SessionKey /*key*/, std::string request_id, Done<std::monostate> done) {
  if (request_id == "running") return done(std::monostate());
  done(absl::NotFoundError("no request " + request_id));
}

void FakeEngine::GetLoad(Done<EngineLoad> done) {
  EngineLoad load;
  load.sessions = 3;
  load.running_requests = 2;
  load.device_bytes_used = 10;
  load.device_bytes_reserved = 20;
  load.device_bytes_limit = 30;
  load.queued_requests = 4;
  load.waiting_chunks = 7;
  load.step_time = absl::Milliseconds(5);
  load.step_time_use = 0.5;
  load.idle_sessions = 1;
  load.tenants = {{.name = "alice", .weight = 3, .running_requests = 2, .share = 0.25}};
  done(load);
}

void FakeEngine::Drain(absl::Duration /*grace*/) {
  std::vector<std::weak_ptr<RequestChannel>> channels;
  {
    const std::lock_guard lock(mutex_);
    channels.swap(channels_);
  }
  for (const auto& weak : channels) {
    if (const auto channel = weak.lock()) {
      channel->PushEvent(
          RequestEnd{MakeError(absl::StatusCode::kUnavailable, "the server is draining",
                               {.reason = ErrorReason::kDraining, .retryable = true})});
    }
  }
}

absl::Status FakeEngine::health() const {
  const std::lock_guard lock(mutex_);
  return health_;
}

void FakeEngine::SetFailureCallback(std::function<void(absl::Status)> on_failure) {
  const std::lock_guard lock(mutex_);
  on_failure_ = std::move(on_failure);
}

}  // namespace mneme
