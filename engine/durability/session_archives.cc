#include "engine/durability/session_archives.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/durability/storage_error.h"
#include "engine/durability/stored_session.h"
#include "engine/error.h"
#include "engine/tokenizer/utf8.h"
#include "storage/checkpoint_files.h"
#include "storage/section_reader.h"

namespace mneme {
namespace {

constexpr char kArchive[] = "the archive";
constexpr size_t kMaxLabels = 64;
constexpr size_t kMaxLabelBytes = 255;
constexpr absl::Duration kMaxTtl = absl::Hours(24 * 365 * 10000);

// Bytes as they come, behind what a spool holds.
class SpoolSink : public ByteSink {
 public:
  explicit SpoolSink(Spool& spool) : spool_(spool) {}
  absl::Status Append(absl::string_view bytes) override {
    return spool_.Append(spool_.size(), bytes);
  }

 private:
  Spool& spool_;
};

// Where an import goes on.
absl::Status GoOnAt(uint64_t offset) {
  const std::string message =
      offset > 0 ? absl::StrCat("of that import ", offset, " bytes have come; go on there")
                 : "nothing is kept of that import, or not any more; begin it at offset 0";
  return MakeError(absl::StatusCode::kOutOfRange, message,
                   {.reason = ErrorReason::kOffsetMismatch, .offset = offset});
}

absl::Status NotThatImport(const std::string& why) {
  return MakeError(absl::StatusCode::kInvalidArgument,
                   absl::StrCat(why, "; take another import_id"),
                   {.reason = ErrorReason::kPayloadMismatch});
}

// Whether the same import may succeed later.
bool MayTryAgain(const absl::Status& status) {
  if (absl::IsUnavailable(status)) return true;
  return absl::IsResourceExhausted(status) && GetErrorInfo(status).retryable;
}

// DATA_LOSS unless every section is whole, and authentic where `key` can tell.
absl::Status CheckWhole(const ByteSource& archive, const std::optional<SecretKey>& key) {
  MNEME_ASSIGN_OR_RETURN(SectionReader reader,
                         SectionReader::Open(kArchiveMagic, kArchive, archive));
  const bool opens = key && reader.sealed() && reader.UseKey(*key).ok();
  std::string part;
  while (true) {
    MNEME_ASSIGN_OR_RETURN(const std::optional<SectionHead> head, reader.Next());
    if (!head) return absl::OkStatus();
    while ((opens || !head->sealed) && reader.remaining() > 0) {
      part.resize(static_cast<size_t>(std::min<uint64_t>(kFrameBytes, reader.remaining())));
      MNEME_RETURN_IF_ERROR(reader.Read(part.size(), part.data()));
    }
  }
}

// `position`: where its log ends.
absl::Status CheckMetadata(const SessionMetadata& metadata, int64_t position,
                           uint64_t log_meaning) {
  if (metadata.log_meaning != log_meaning) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     "the session was logged with a model of another vocabulary or chunk size; "
                     "import it where that model is served",
                     {.reason = ErrorReason::kOtherModel});
  }
  const auto sound = [](const auto& label) {
    return !label.first.empty() && label.first.size() <= kMaxLabelBytes &&
           label.second.size() <= kMaxLabelBytes && IsValidUtf8(label.first) &&
           IsValidUtf8(label.second);
  };
  const auto names_past = [position](const auto& named) {
    return ValidateCheckpointName(named.first).ok() && named.second >= 0 &&
           named.second <= position;
  };
  const absl::Duration ttl = metadata.ttl.value_or(kMaxTtl);
  if (metadata.checkpoints.size() <= kMaxNamedCheckpoints &&
      std::all_of(metadata.checkpoints.begin(), metadata.checkpoints.end(), names_past) &&
      metadata.labels.size() <= kMaxLabels && ttl > absl::ZeroDuration() && ttl <= kMaxTtl &&
      std::all_of(metadata.labels.begin(), metadata.labels.end(), sound)) {
    return absl::OkStatus();
  }
  return absl::DataLossError(
      "the archive holds labels, a ttl or names of checkpoints that no session can have");
}

// The session's log, which must hold what clients were told of when the archive was asked for.
absl::StatusOr<SessionState> LoadLog(const SessionStore& store,
                                     const SessionArchives::Subject& subject) {
  MNEME_ASSIGN_OR_RETURN(SessionState state, store.Load(subject.id));
  if (std::make_tuple(state.epoch, state.position()) >=
      std::make_tuple(subject.epoch, subject.position)) {
    return state;
  }
  return absl::UnavailableError("the session's log is still being written; try again");
}

}  // namespace

SessionArchives::SessionArchives(SessionStore& store, const ArchiveOptions& options,
                                 const ModelConfig& config, uint64_t log_meaning,
                                 uint64_t model_fingerprint, const Clock& clock,
                                 std::shared_ptr<Mailbox> mailbox)
    : store_(store),
      options_(options),
      config_(config),
      log_meaning_(log_meaning),
      model_fingerprint_(model_fingerprint),
      mailbox_(std::move(mailbox)),
      imports_(options.max_bytes, clock, [mailbox = mailbox_](std::function<void()> letter) {
        mailbox->Post(std::move(letter));
      }) {}

template <typename Work, typename Callback>
void SessionArchives::Run(Work work, Callback done) {
  ++under_way_;
  io_->Run([this, work = std::move(work), done = std::move(done)]() mutable {
    // The files that it holds are let go before anybody is told.
    auto result = Work(std::move(work))();
    mailbox_->Post([this, result = std::move(result), done = std::move(done)]() mutable {
      --under_way_;
      if (result.ok()) return done(std::move(result));
      done(ForClient(result.status()));
    });
  });
}

void SessionArchives::Export(Subject subject, Done<SessionArchive> done) {
  Run([this, subject = std::move(subject)] { return MakeArchive(subject); }, std::move(done));
}

void SessionArchives::BeginImport(const SessionKey& key, const ImportStart& start,
                                  Done<std::shared_ptr<ArchiveFile>> done) {
  if (start.import_id.empty()) {
    return Run([this, tenant = key.tenant] { return NewFile(tenant); }, std::move(done));
  }
  const PartialImports::Name name = {key.tenant, start.import_id};
  const std::string* const session_id = imports_.SessionOf(name);
  if (session_id == nullptr) {
    if (start.offset > 0) return done(GoOnAt(0));
    return AddImport(key, start, std::move(done));
  }
  if (*session_id != key.id) {
    return done(NotThatImport(absl::StrCat("import ", start.import_id, " is of another session")));
  }
  GoOnWith(key.tenant, imports_.Lend(name), start, std::move(done));
}

void SessionArchives::AddImport(const SessionKey& key, const ImportStart& start,
                                Done<std::shared_ptr<ArchiveFile>> done) {
  const auto add = [this, key, start,
                    done = std::move(done)](absl::StatusOr<std::shared_ptr<ArchiveFile>> file) {
    if (!file.ok()) return done(file.status());
    const PartialImports::Name name = {key.tenant, start.import_id};
    // Of two at once, the first.
    if (imports_.SessionOf(name) != nullptr) return BeginImport(key, start, done);
    imports_.Add(name, key.id, *std::move(file));
    done(imports_.Lend(name));
  };
  Run([this, tenant = key.tenant] { return NewFile(tenant); }, add);
}

void SessionArchives::GoOnWith(const std::string& tenant, const std::shared_ptr<ArchiveFile>& file,
                               const ImportStart& start, Done<std::shared_ptr<ArchiveFile>> done) {
  const auto look = [this, tenant, file, start]() -> absl::StatusOr<std::shared_ptr<ArchiveFile>> {
    const Spool& spool = file->spool();
    MNEME_RETURN_IF_ERROR(spool.failure());
    if (spool.size() != start.offset) return GoOnAt(spool.size());
    if (start.hash.value_or(spool.hash()) != spool.hash()) {
      return NotThatImport(absl::StrCat("the first ", spool.size(), " bytes of import ",
                                        start.import_id, " were others"));
    }
    MNEME_RETURN_IF_ERROR(CheckPlaces(tenant, file.get()));
    return file;
  };
  Run(look,
      [this, file, done = std::move(done)](absl::StatusOr<std::shared_ptr<ArchiveFile>> looked) {
        if (looked.ok() || !file->failed()) return done(std::move(looked));
        imports_.Drop(*file);  // it takes no more
        done(GoOnAt(0));
      });
}

void SessionArchives::EndImport(const ArchiveFile& file, const absl::Status& status) {
  if (!MayTryAgain(status)) imports_.Drop(file);
}

void SessionArchives::Read(std::shared_ptr<ArchiveFile> file, Done<ArchivedSession> done) {
  Run([this, file = std::move(file)] { return ReadSession(file->spool()); }, std::move(done));
}

void SessionArchives::TakeState(std::shared_ptr<ArchiveFile> file, const StoreId& id,
                                Done<bool> done) {
  Run([this, file = std::move(file), id] { return CopyState(file->spool(), id); }, std::move(done));
}

absl::Status SessionArchives::CheckPlaces(const std::string& tenant, const ArchiveFile* own) {
  std::erase_if(files_, [](const Place& place) { return place.file.expired(); });
  int all = 0, of_tenant = 0;
  for (const Place& place : files_) {
    const std::shared_ptr<ArchiveFile> file = place.file.lock();
    if (file == nullptr || file->left() || file.get() == own) continue;
    ++all;
    if (place.tenant == tenant) ++of_tenant;
  }
  if (all < kMaxArchives && of_tenant < kMaxArchivesOfTenant) return absl::OkStatus();
  const std::string how_many = all < kMaxArchives
                                   ? absl::StrCat(of_tenant, " archives of this tenant")
                                   : absl::StrCat(all, " archives");
  return MakeError(
      absl::StatusCode::kResourceExhausted,
      absl::StrCat("there are ", how_many, " on their way; try again"),
      {.reason = ErrorReason::kQueueFull, .retryable = true, .retry_delay = absl::Seconds(2)});
}

absl::StatusOr<std::shared_ptr<ArchiveFile>> SessionArchives::NewFile(const std::string& tenant) {
  MNEME_RETURN_IF_ERROR(CheckPlaces(tenant));
  MNEME_ASSIGN_OR_RETURN(auto spool,
                         Spool::Create(store_.files(), store_.NewSpoolPath(), options_.max_bytes));
  auto file = std::make_shared<ArchiveFile>(std::move(spool), io_);
  files_.push_back({tenant, file});
  return file;
}

absl::StatusOr<SessionArchive> SessionArchives::MakeArchive(const Subject& subject) {
  MNEME_ASSIGN_OR_RETURN(const SessionState state, LoadLog(store_, subject));
  SessionArchive archive;
  const auto write = [&](CheckpointReader* checkpoint) -> absl::Status {
    archive.file = nullptr;
    MNEME_ASSIGN_OR_RETURN(archive.file, NewFile(subject.metadata.tenant));
    ArchiveExport writer(subject.metadata, state, checkpoint, options_.operator_key);
    SpoolSink sink(archive.file->spool());
    MNEME_RETURN_IF_ERROR(writer.WriteTo(sink, 0));
    archive.id = writer.id().ToHex();
    archive.size_bytes = archive.file->spool().size();
    return absl::OkStatus();
  };
  if (options_.operator_key) {
    MNEME_ASSIGN_OR_RETURN(
        const Restored written,
        CheckpointFiles(store_).RestoreNewest(
            {.id = subject.id, .state = &state, .model_fingerprint = model_fingerprint_},
            [&write](CheckpointReader& checkpoint) { return write(&checkpoint); }));
    if (written.from) return archive;
  }
  MNEME_RETURN_IF_ERROR(write(nullptr));
  return archive;
}

absl::StatusOr<ArchivedSession> SessionArchives::ReadSession(Spool& spool) const {
  MNEME_RETURN_IF_ERROR(CheckWhole(spool, options_.operator_key));
  MNEME_ASSIGN_OR_RETURN(const ArchiveReader reader, ArchiveReader::Open(kArchive, spool));
  MNEME_RETURN_IF_ERROR(CheckMetadata(reader.metadata(), reader.state().position(), log_meaning_));
  ArchivedSession session = {.metadata = reader.metadata(),
                             .epoch = reader.state().epoch,
                             .logs = {},
                             .events = reader.state().ToEvents()};
  MNEME_ASSIGN_OR_RETURN(session.logs, FromStored(reader.state(), config_));
  return session;
}

absl::StatusOr<bool> SessionArchives::CopyState(Spool& spool, const StoreId& id) {
  if (!options_.operator_key) return false;
  MNEME_ASSIGN_OR_RETURN(ArchiveReader reader, ArchiveReader::Open(kArchive, spool));
  CheckpointFiles checkpoints(store_);
  const auto writer =
      reader.CopyState(*options_.operator_key, model_fingerprint_,
                       [&](const CheckpointInfo& info) { return checkpoints.Create(id, info); });
  if (!writer.ok()) return false;
  return (*writer)->Commit().ok();
}

}  // namespace mneme
