// EngineLoop's part that archives are: sessions that come from elsewhere, and go there.

#include <algorithm>
#include <utility>

#include "base/status_macros.h"
#include "engine/error.h"
#include "engine/loop/engine_loop.h"

namespace mneme {

absl::Status EngineLoop::CheckArchives() const {
  MNEME_RETURN_IF_ERROR(failure_);
  MNEME_RETURN_IF_ERROR(refusal_);
  MNEME_RETURN_IF_ERROR(log_.Health());
  if (log_.archives() != nullptr) return absl::OkStatus();
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   "this server keeps sessions in memory alone and makes no archives; start it "
                   "with --data_dir",
                   {});
}

void EngineLoop::ExportSession(const SessionKey& key, const Engine::Done<SessionArchive>& done) {
  if (const absl::Status status = CheckArchives(); !status.ok()) return done(status);
  const absl::StatusOr<Session*> session = sessions_.Find(key);
  if (!session.ok()) return done(session.status());
  if (!(*session)->damage().ok()) return done((*session)->damage());
  log_.WhenDurable([this, subject = log_.Describe(**session), done](const absl::Status& status) {
    status.ok() ? log_.archives()->Export(subject, done) : done(status);
  });
}

void EngineLoop::BeginImport(const SessionKey& key, const ImportStart& start,
                             const Engine::Done<std::shared_ptr<ArchiveFile>>& done) {
  if (const absl::Status status = CheckArchives(); !status.ok()) return done(status);
  if (const absl::Status status = sessions_.CheckNew(key); !status.ok()) return done(status);
  log_.archives()->BeginImport(key, start, done);
}

void EngineLoop::ImportSession(const SessionKey& key, const std::shared_ptr<ArchiveFile>& archive,
                               const Engine::Done<SessionInfo>& told) {
  if (const absl::Status status = CheckArchives(); !status.ok()) return told(status);
  const auto done = [this, archive, told](const absl::StatusOr<SessionInfo>& info) {
    log_.archives()->EndImport(*archive, info.status());
    told(info);
  };
  log_.archives()->Read(archive, [this, key, archive,
                                  done](absl::StatusOr<ArchivedSession> archived) {
    if (!archived.ok()) return done(archived.status());
    const absl::StatusOr<Session*> session = Import(key, *std::move(archived));
    if (!session.ok()) return done(session.status());
    const StoreId id = log_.Describe(**session).id;
    log_.WhenDurable([this, archive, id, info = InfoOf(**session), done](const absl::Status& kept) {
      if (!kept.ok()) return done(kept);
      log_.archives()->TakeState(archive, id, [info, done](const absl::StatusOr<bool>&) {
        done(info);  // without the state it is computed from the log
      });
    });
  });
}

absl::StatusOr<Session*> EngineLoop::Import(const SessionKey& key, ArchivedSession archived) {
  MNEME_RETURN_IF_ERROR(CheckArchives());
  MNEME_RETURN_IF_ERROR(ValidateTenant(key.tenant));
  SessionOptions options = {.controls = archived.logs.controls.latest(),
                            .labels = std::move(archived.metadata.labels),
                            .ttl = archived.metadata.ttl};
  MNEME_ASSIGN_OR_RETURN(Session * session,
                         sessions_.Create(key, std::move(options), context_.clock.Now()));
  const size_t updates = archived.logs.updates.size();
  session->Park(archived.epoch, static_cast<int64_t>(archived.logs.tokens.size()));
  session->Load(std::move(archived.logs));
  session->set_checkpoints(std::move(archived.metadata.checkpoints));
  next_expiry_ = std::min(next_expiry_, session->expiry());
  log_.Import(*session, std::move(archived.events), updates);
  return session;
}

}  // namespace mneme
