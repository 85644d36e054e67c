#include "engine/durability/session_log.h"

#include <algorithm>
#include <string>
#include <variant>

#include "absl/strings/str_cat.h"
#include "engine/durability/storage_error.h"
#include "engine/durability/stored_session.h"
#include "engine/error.h"

namespace mneme {
namespace {

absl::Status OtherModel() {
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   "the session was logged with a model of another vocabulary or chunk size; serve "
                   "it with that model, or delete it",
                   {.reason = ErrorReason::kOtherModel});
}

absl::StatusOr<SessionLogs> ReadLogs(SessionStore& store, const StoreId& id,
                                     const std::optional<StoreId>& origin,
                                     const ModelConfig& config, const StateFormat& format,
                                     int64_t max_position, StoredImage* stored) {
  absl::StatusOr<SessionState> state = store.Load(id);
  if (state.ok()) {
    *stored = ReadNewestImage(store, id, *state, format, max_position);
    // It may well not fit, which is no news.
    if (!stored->image && origin) {
      stored->image = ReadNewestImage(store, *origin, *state, format, max_position).image;
    }
    return FromStored(*std::move(state), config);
  }
  const bool later = absl::IsUnavailable(state.status());
  return MakeError(
      later ? state.status().code() : absl::StatusCode::kDataLoss,
      std::string(state.status().message()),
      {.reason = later ? ErrorReason::kStorageFailed : ErrorReason::kDataLoss, .retryable = later});
}

// Why no request can ever run on the session; OK: one can.
absl::Status DamageOf(const ListedSession& listed, uint64_t log_meaning) {
  if (!listed.damage.ok()) {
    return MakeError(listed.damage.code(), std::string(listed.damage.message()),
                     {.reason = absl::IsDataLoss(listed.damage) ? ErrorReason::kDataLoss
                                                                : ErrorReason::kStorageFailed});
  }
  return listed.metadata.log_meaning == log_meaning ? absl::OkStatus() : OtherModel();
}

bool Deletes(const LogBatch& batch) {
  return std::any_of(batch.begin(), batch.end(), [](const LogOperation& operation) {
    return std::holds_alternative<DeleteSession>(operation);
  });
}

}  // namespace

SessionLog::SessionLog(std::optional<SessionStore::Opened> stored, uint64_t log_meaning,
                       const StateFormat& format, const Clock& clock, std::function<void()> wake)
    : log_meaning_(log_meaning),
      format_(format),
      clock_(clock),
      mailbox_(std::make_shared<Mailbox>(std::move(wake))),
      journal_(log_meaning) {
  if (!stored) return;
  listing_ = std::move(stored->listing);
  store_ = std::move(stored->store);
  tells_at_once_ = store_->durability() == Durability::kNone;
  io_ = std::make_unique<IoThread>();
}

SessionLog::~SessionLog() { Stop(); }

void SessionLog::Stop() {
  if (!store_) return;
  Commit();
  io_->Stop();
  if (archives_) archives_->Stop();
  store_.reset();  // every commit is told of now
  Receive();
}

void SessionLog::ListInto(SessionTable* sessions) {
  for (const ListedSession& listed : std::exchange(listing_, {}).sessions) {
    const SessionMetadata& metadata = listed.metadata;
    const absl::StatusOr<LearningControls> controls = FromStored(metadata.controls);
    SessionOptions options = {.controls = controls.value_or(LearningControls()),
                              .labels = metadata.labels,
                              .ttl = metadata.ttl};
    Session* session =
        sessions->Add({metadata.tenant, metadata.id}, std::move(options), metadata.create_time);
    session->Park(listed.epoch, listed.position);
    session->set_checkpoints(metadata.checkpoints);
    session->Touch(listed.last_used_time);
    session->set_damage(DamageOf(listed, log_meaning_));
    journal_.Adopt(*session, listed.id);
  }
}

void SessionLog::Create(const Session& session, absl::Span<const UpdatePoint> updates,
                        const Session* parent) {
  if (store_) journal_.Create(session, updates, parent);
}

void SessionLog::Import(const Session& session, std::vector<SessionEvent> events, size_t updates) {
  if (store_) journal_.Import(session, std::move(events), updates);
}

void SessionLog::RollBack(const Session& session, size_t updates) {
  if (store_) journal_.RollBack(session, updates);
}

void SessionLog::Update(const Session& session, bool controls) {
  if (store_) journal_.Update(session, controls);
}

void SessionLog::Delete(const Session& session) {
  if (store_) journal_.Delete(session);
}

void SessionLog::Note(const Session& session, std::shared_ptr<const RequestRecord> request) {
  if (store_) journal_.Note(session, std::move(request));
}

void SessionLog::Commit() {
  if (!store_) return;
  LogBatch batch = journal_.Take(last_ + 1, Health().ok());
  if (!batch.empty()) CommitBatch(std::move(batch));
  for (auto& [session, tell] : std::exchange(told_, {})) {
    const uint64_t number = session ? session->last_commit : last_;
    if (number > completed_) {
      outbox_.Hold(number, std::move(tell));
    } else {
      tell(absl::OkStatus());
    }
  }
}

void SessionLog::CommitBatch(LogBatch batch) {
  const uint64_t number = ++last_;
  commit_times_.push_back(clock_.Now());
  if (Deletes(batch)) deletions_.push_back(number);
  store_->Commit(std::move(batch), [this, number](const absl::Status& status) {
    mailbox_->Post([this, number, status] { OnWritten(number, status); });
  });
  if (tells_at_once_) Complete(written_, absl::OkStatus());
}

void SessionLog::Send(const Session& session, std::shared_ptr<RequestChannel> channel,
                      RequestEvent event) {
  std::shared_ptr<const LoggedSession> logged = journal_.Find(session);
  if (logged == nullptr) return channel->PushEvent(std::move(event));
  told_.emplace_back(std::move(logged), TellEvent(std::move(channel), std::move(event)));
}

void SessionLog::WhenDurable(Tell tell) {
  if (!store_) return tell(absl::OkStatus());
  told_.emplace_back(nullptr, std::move(tell));
}

bool SessionLog::Receive() {
  const std::vector<Mailbox::Letter> letters = mailbox_->Take();
  for (const Mailbox::Letter& letter : letters) letter();
  if (archives_) archives_->DropOldImports();
  return !letters.empty();
}

void SessionLog::OnWritten(uint64_t number, const absl::Status& status) {
  if (status.ok()) written_ = number;
  commit_times_.pop_front();
  if (!deletions_.empty() && deletions_.front() == number) deletions_.pop_front();
  Complete(number, status.ok() ? status : StorageError(status, std::string(status.message())));
}

void SessionLog::Complete(uint64_t number, const absl::Status& status) {
  completed_ = number;
  if (tells_at_once_) completed_ = deletions_.empty() ? last_ : deletions_.front() - 1;
  outbox_.Release(completed_, status);
}

void SessionLog::GiveUp(const absl::Status& status) {
  Commit();
  outbox_.Release(last_, status);
}

absl::Status SessionLog::Health() const {
  if (!store_) return absl::OkStatus();
  const absl::Status status = store_->health().status;
  if (!status.ok()) {
    return StorageError(
        status, absl::StrCat("the session log cannot be written: ", std::string(status.message())));
  }
  if (commit_times_.empty()) return absl::OkStatus();
  const absl::Duration waiting = clock_.Now() - commit_times_.front();
  if (waiting < kStallLimit) return absl::OkStatus();
  return StorageError(absl::UnavailableError(""),
                      absl::StrCat("the session log has not been written for ",
                                   absl::FormatDuration(absl::Trunc(waiting, absl::Seconds(1))),
                                   ": the disk hangs or is too slow"));
}

bool SessionLog::MayLog() const {
  return last_ - completed_ < kMaxStepsAhead && commit_times_.size() < kMaxStepsUnwritten &&
         Health().ok();
}

bool SessionLog::HasAllOf(const Session& session) const {
  const std::shared_ptr<const LoggedSession> logged = journal_.Find(session);
  return logged == nullptr || logged->last_commit <= completed_;
}

bool SessionLog::IsWritten(const Session& session) {
  Commit();
  return journal_.Find(session)->last_commit <= written_;
}

void SessionLog::AddTo(EngineLoad* load) const {
  if (!store_) return;
  load->log_pending_batches = store_->health().pending_batches;
  load->log_writable = Health().ok();
}

std::shared_ptr<SessionLog::Loading> SessionLog::Load(const Session& session,
                                                      const ModelConfig& config) {
  auto loading = std::make_shared<Loading>();
  ++loads_;
  io_->Run([this, loading, store = store_.get(), id = IdOf(session),
            origin = journal_.Find(session)->origin, position = session.position(), &config] {
    // The engine thread looks at the image when it has got the letter.
    absl::StatusOr<SessionLogs> logs =
        ReadLogs(*store, id, origin, config, format_, position, &loading->stored);
    mailbox_->Post([this, loading, logs = std::move(logs)]() mutable {
      --loads_;
      loading->result = std::move(logs);
    });
  });
  return loading;
}

void SessionLog::OpenArchives(const ArchiveOptions& options, const ModelConfig& config,
                              uint64_t model_fingerprint) {
  if (!store_) return;
  archives_ = std::make_unique<SessionArchives>(*store_, options, config, log_meaning_,
                                                model_fingerprint, clock_, mailbox_);
}

SessionArchives::Subject SessionLog::Describe(const Session& session) const {
  return {.id = journal_.Find(session)->id,
          .metadata = MetadataOf(session, log_meaning_),
          .epoch = session.epoch(),
          .position = session.position()};
}

void SessionLog::RunOnDisk(Work work) {
  ++works_;
  io_->Run([this, store = store_.get(), work = std::move(work)] {
    mailbox_->Post([this, then = work(*store)] {
      --works_;
      then();
    });
  });
}

}  // namespace mneme
