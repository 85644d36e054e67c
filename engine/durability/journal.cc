#include "engine/durability/journal.h"

#include <algorithm>
#include <iterator>

#include "engine/durability/stored_session.h"

namespace mneme {
namespace {

void AddTokens(const Session& session, LoggedSession* logged, std::vector<SessionEvent>* events) {
  if (session.position() == logged->position) return;
  const auto begin = session.log().begin() + logged->position;
  events->emplace_back(TokensLogged{{begin, session.log().end()}});
  logged->position = session.position();
}

void AddUpdates(const Session& session, LoggedSession* logged, std::vector<SessionEvent>* events) {
  const std::vector<UpdatePoint>& points = session.state().update_log().points();
  for (; logged->updates < points.size(); ++logged->updates) {
    const UpdatePoint& point = points[logged->updates];
    events->emplace_back(UpdateApplied{.chunk = point.chunk, .position = point.position});
  }
}

void AddTurn(const Session& session, LoggedSession* logged, std::vector<SessionEvent>* events) {
  if (session.open_turn() == logged->open_turn) return;
  logged->open_turn = session.open_turn();
  events->emplace_back(OpenTurnSet{logged->open_turn});
}

void AddRequest(const std::shared_ptr<const RequestRecord>& request, LoggedSession* logged,
                std::vector<SessionEvent>* events) {
  if (logged->request != request) {
    events->emplace_back(RequestRecorded{ToStored(*request)});
  } else if (logged->request_end != request->end_position ||
             logged->request_complete != request->complete) {
    events->emplace_back(AdvanceOf(*request, logged->append_logprobs, logged->generated_logprobs));
  } else {
    return;
  }
  logged->request = request;
  logged->request_end = request->end_position;
  logged->request_complete = request->complete;
  logged->append_logprobs = request->append_logprobs.size();
  logged->generated_logprobs = request->generated_logprobs.size();
}

// Whether a restart would count the session's time to live from too early a use: it may be wrong by
// a hundredth.
bool UseIsDue(const Session& session, const LoggedSession& logged) {
  return session.ttl() && session.last_used_time() - logged.time >= *session.ttl() / 100;
}

}  // namespace

void Journal::Adopt(const Session& session, const StoreId& id) {
  sessions_[&session] = std::make_shared<LoggedSession>(
      LoggedSession{.id = id, .position = session.position(), .time = session.last_used_time()});
}

void Journal::Unload(const Session& session) {
  LoggedSession* logged = FindLogged(session);
  *logged = {.id = logged->id,
             .origin = logged->origin,
             .position = session.position(),
             .time = logged->time,
             .last_commit = logged->last_commit};
}

void Journal::OnLoaded(const Session& session, const SessionLogs& logs) {
  LoggedSession* logged = FindLogged(session);
  logged->updates = logs.updates.size();
  logged->open_turn = logs.open_turn;
}

void Journal::Create(const Session& session, absl::Span<const UpdatePoint> updates,
                     const Session* parent) {
  auto logged = std::make_shared<LoggedSession>(
      LoggedSession{.id = StoreId::Random(), .updates = updates.size()});
  if (parent != nullptr) logged->origin = Find(*parent)->id;
  sessions_[&session] = logged;
  batch_.emplace_back(CreateSession{logged->id, MetadataOf(session, log_meaning_)});
  std::vector<SessionEvent> events;
  for (const auto& [position, controls] : session.controls().entries()) {
    events.emplace_back(ControlsSet{.position = position, .controls = ToStored(controls)});
  }
  for (const UpdatePoint& point : updates) {
    events.emplace_back(UpdateApplied{.chunk = point.chunk, .position = point.position});
  }
  Collect(session, logged.get(), nullptr, std::move(events));
}

void Journal::Import(const Session& session, std::vector<SessionEvent> events, size_t updates) {
  auto logged = std::make_shared<LoggedSession>(LoggedSession{.id = StoreId::Random(),
                                                              .position = session.position(),
                                                              .updates = updates,
                                                              .open_turn = session.open_turn()});
  sessions_[&session] = logged;
  batch_.emplace_back(CreateSession{logged->id, MetadataOf(session, log_meaning_)});
  Collect(session, logged.get(), nullptr, std::move(events));
}

void Journal::RollBack(const Session& session, size_t updates) {
  LoggedSession* logged = FindLogged(session);
  if (logged == nullptr) return;
  logged->position = session.position();
  logged->updates = updates;
  logged->open_turn = session.open_turn();
  // Controls and names of checkpoints may have been forgotten.
  batch_.emplace_back(SetMetadata{logged->id, MetadataOf(session, log_meaning_)});
  Collect(session, logged, nullptr,
          {RolledBack{.position = session.position(), .epoch = session.epoch()}});
}

void Journal::Update(const Session& session, bool controls) {
  LoggedSession* logged = FindLogged(session);
  batch_.emplace_back(SetMetadata{logged->id, MetadataOf(session, log_meaning_)});
  std::vector<SessionEvent> events;
  if (controls) {
    events.emplace_back(ControlsSet{.position = session.position(),
                                    .controls = ToStored(session.controls().latest())});
  }
  Collect(session, logged, nullptr, std::move(events));
  if (logged->time < session.last_used_time()) AddRecord(session, logged, {});
  in_batch_.push_back(sessions_[&session]);
}

void Journal::Delete(const Session& session) {
  const std::shared_ptr<LoggedSession> logged = sessions_[&session];
  batch_.emplace_back(DeleteSession{logged->id});
  in_batch_.push_back(logged);
  std::erase_if(noted_, [&session](const auto& entry) { return entry.first == &session; });
  used_.erase(&session);
  sessions_.erase(&session);
}

void Journal::Note(const Session& session, std::shared_ptr<const RequestRecord> request) {
  if (FindLogged(session) != nullptr) noted_.emplace_back(&session, std::move(request));
}

LogBatch Journal::Take(uint64_t number, bool with_uses) {
  for (const auto& [session, request] : noted_) {
    LoggedSession* logged = FindLogged(*session);
    Collect(*session, logged, request);
    if (UseIsDue(*session, *logged)) {
      used_.insert_or_assign(session, RecordOf(*session, logged, {}));
    }
  }
  noted_.clear();
  for (const auto& logged : in_batch_) logged->last_commit = number;
  in_batch_.clear();
  if (with_uses) {
    for (auto& [session, record] : std::exchange(used_, {})) batch_.emplace_back(std::move(record));
  }
  return std::exchange(batch_, {});
}

std::shared_ptr<const LoggedSession> Journal::Find(const Session& session) const {
  const auto found = sessions_.find(&session);
  return found == sessions_.end() ? nullptr : found->second;
}

LoggedSession* Journal::FindLogged(const Session& session) {
  const auto found = sessions_.find(&session);
  return found == sessions_.end() ? nullptr : found->second.get();
}

void Journal::Collect(const Session& session, LoggedSession* logged,
                      const std::shared_ptr<const RequestRecord>& request,
                      std::vector<SessionEvent> more) {
  std::vector<SessionEvent> events;
  if (session.loaded()) {
    AddTokens(session, logged, &events);
    AddUpdates(session, logged, &events);
    AddTurn(session, logged, &events);
    // A request of which nothing is logged leaves no record.
    if (request && session.records().Holds(*request)) AddRequest(request, logged, &events);
  }
  std::move(more.begin(), more.end(), std::back_inserter(events));
  if (events.empty()) return;
  AddRecord(session, logged, std::move(events));
  in_batch_.push_back(sessions_[&session]);
}

LogEvents Journal::RecordOf(const Session& session, LoggedSession* logged,
                            std::vector<SessionEvent> events) {
  logged->time = session.last_used_time();
  return {.id = logged->id,
          .epoch = session.epoch(),
          .position = session.position(),
          .time = logged->time,
          .events = std::move(events)};
}

void Journal::AddRecord(const Session& session, LoggedSession* logged,
                        std::vector<SessionEvent> events) {
  used_.erase(&session);
  batch_.emplace_back(RecordOf(session, logged, std::move(events)));
}

}  // namespace mneme
