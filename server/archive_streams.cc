#include "server/archive_streams.h"

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/error.h"
#include "server/auth.h"
#include "server/call_record.h"
#include "server/convert_session.h"
#include "server/convert_status.h"
#include "server/stall_watch.h"

namespace mneme {
namespace {

constexpr uint64_t kPieceBytes = uint64_t{1} << 18;

// Why a read or write of the client's stream has failed.
absl::Status WhyLost(const StallWatch& watch) {
  if (!watch.stalled()) return absl::CancelledError("the client cancelled the call or is gone");
  return MakeError(absl::StatusCode::kCancelled,
                   "the client has let the archive wait for longer than --slow_reader_seconds",
                   {.reason = ErrorReason::kSlowReader, .retryable = true});
}

// Each callback causes the next one, and the last one ends the call: a client that is gone shows in
// the read or write that fails.
class ExportStream final : public grpc::ServerWriteReactor<v1::ExportSessionResponse> {
 public:
  ExportStream(const ServiceContext& context, grpc::CallbackServerContext& call,
               const v1::ExportSessionRequest& request)
      : record_(context, "ExportSession", TenantOf(call, context.trust_tenant_metadata)),
        watch_(std::make_shared<StallWatch>(call, context.engine.options().slow_reader_limit)),
        offset_(request.offset()),
        wanted_id_(request.archive_id()) {
    record_.session_id = request.session_id();
    if (const absl::Status status = Check(request); !status.ok()) {
      End(status);
      return;
    }
    context.engine.ExportSession(
        {record_.tenant(), request.session_id()},
        [this](absl::StatusOr<SessionArchive> archive) { Begin(std::move(archive)); });
  }

  void OnWriteDone(bool ok) override {
    watch_->End();
    if (!ok) return End(WhyLost(*watch_));
    ReadPiece();
  }
  void OnDone() override {
    watch_->Stop();
    delete this;
  }

 private:
  static absl::Status Check(const v1::ExportSessionRequest& request) {
    MNEME_RETURN_IF_ERROR(RequireSessionId(request.session_id()));
    if (request.offset() == 0 || !request.archive_id().empty()) return absl::OkStatus();
    return InvalidField("archive_id", "an offset needs the archive_id that it belongs to");
  }

  void Begin(absl::StatusOr<SessionArchive> archive) {
    if (!archive.ok()) return End(archive.status());
    archive_ = *std::move(archive);
    if (!wanted_id_.empty() && wanted_id_ != archive_.id) {
      return End(RequestError(absl::StatusCode::kAborted, v1::ERROR_REASON_POSITION_MISMATCH,
                              "archive_id",
                              "the session has changed since that archive; begin the export anew"));
    }
    if (offset_ > archive_.size_bytes) {
      return End(RequestError(absl::StatusCode::kOutOfRange, v1::ERROR_REASON_INVALID_FIELD,
                              "offset",
                              absl::StrCat("the archive has ", archive_.size_bytes, " bytes")));
    }
    message_.set_archive_id(archive_.id);
    message_.set_size_bytes(archive_.size_bytes);
    ReadPiece();
  }

  void ReadPiece() {
    archive_.file->Read(offset_, kPieceBytes, [this](absl::StatusOr<std::string> piece) {
      if (!piece.ok()) return End(piece.status());
      if (piece->empty() && message_.archive_id().empty()) return End(absl::OkStatus());
      WritePiece(*std::move(piece));
    });
  }

  void WritePiece(std::string piece) {
    offset_ += piece.size();
    sent_.Clear();
    sent_.Swap(&message_);
    sent_.set_data(std::move(piece));
    watch_->Begin();
    StartWrite(&sent_);
  }

  void End(const absl::Status& status) {
    record_.End(status);
    archive_.file.reset();  // its place is free before the client is told
    Finish(ToGrpcStatus(status));
  }

  CallRecord record_;
  const std::shared_ptr<StallWatch> watch_;
  uint64_t offset_;
  const std::string wanted_id_;
  SessionArchive archive_;
  v1::ExportSessionResponse message_;  // what the next one says of the archive
  v1::ExportSessionResponse sent_;
};

class ImportStream final : public grpc::ServerReadReactor<v1::ImportSessionRequest> {
 public:
  ImportStream(const ServiceContext& context, grpc::CallbackServerContext& call,
               v1::Session* response)
      : context_(context),
        call_(call),
        record_(context, "ImportSession", TenantOf(call, context.trust_tenant_metadata)),
        watch_(std::make_shared<StallWatch>(call, context.engine.options().slow_reader_limit)),
        response_(response) {
    ReadNext();
  }

  void OnReadDone(bool ok) override {
    watch_->End();
    if (!ok) return TakeEnd();
    if (file_ == nullptr) return TakeFirst();
    if (message_.has_session_id() || message_.has_import_id() || message_.offset() > 0) {
      return End(
          InvalidField("session_id", "only the first message may name the session and the import"));
    }
    Store();
  }
  void OnDone() override {
    watch_->Stop();
    delete this;
  }

 private:
  void ReadNext() {
    watch_->Begin();
    StartRead(&message_);
  }

  void TakeFirst() {
    record_.session_id = message_.session_id();
    if (const absl::Status status = CheckFirst(); !status.ok()) return End(status);
    key_ = {record_.tenant(), message_.session_id()};
    ImportStart start = {.import_id = message_.import_id(), .offset = message_.offset()};
    if (message_.has_offset_xxh3()) start.hash = message_.offset_xxh3();
    size_bytes_ = start.offset;
    context_.engine.BeginImport(key_, std::move(start),
                                [this](absl::StatusOr<std::shared_ptr<ArchiveFile>> file) {
                                  if (!file.ok()) return End(file.status());
                                  file_ = *std::move(file);
                                  Store();
                                });
  }

  absl::Status CheckFirst() const {
    if (message_.has_session_id()) {
      const absl::Status status = ValidateSessionId(message_.session_id());
      if (!status.ok()) return InvalidField("session_id", std::string(status.message()));
    }
    if (message_.has_import_id()) {
      const absl::Status status = ValidateSessionId(message_.import_id());
      if (!status.ok()) return InvalidField("import_id", std::string(status.message()));
    } else if (message_.offset() > 0) {
      return InvalidField("offset", "an offset needs the import_id that it belongs to");
    }
    return absl::OkStatus();
  }

  void Store() {
    const uint64_t offset = size_bytes_;
    size_bytes_ += message_.data().size();
    file_->Append(offset, std::move(*message_.mutable_data()), [this](const absl::Status& status) {
      if (absl::IsOutOfRange(status)) return End(Overtaken());
      if (!status.ok()) return End(status);
      message_.Clear();
      ReadNext();
    });
  }

  // Another stream goes on with the import.
  absl::Status Overtaken() const {
    return MakeError(absl::StatusCode::kOutOfRange, "another stream has gone on with the import",
                     {.reason = ErrorReason::kOffsetMismatch, .offset = file_->size_bytes()});
  }

  // The client has closed its side, or is gone; what it has sent of an archive then has no end.
  void TakeEnd() {
    if (watch_->stalled() || call_.IsCancelled()) return End(WhyLost(*watch_));
    if (file_ == nullptr) {
      return End(RequestError(absl::StatusCode::kInvalidArgument, v1::ERROR_REASON_EMPTY_INPUT,
                              "data", "the stream ended without an archive"));
    }
    context_.engine.ImportSession(key_, file_, [this](const absl::StatusOr<SessionInfo>& info) {
      if (info.ok()) {
        record_.session_id = info->key.id;
        ToProto(*info, context_.model, response_);
      }
      End(info.status());
    });
  }

  void End(const absl::Status& status) {
    record_.End(status);
    file_.reset();  // it can be gone on with before the client is told
    Finish(ToGrpcStatus(status));
  }

  const ServiceContext& context_;
  const grpc::CallbackServerContext& call_;
  CallRecord record_;
  const std::shared_ptr<StallWatch> watch_;
  v1::Session* const response_;
  v1::ImportSessionRequest message_;  // that is being read
  SessionKey key_;
  std::shared_ptr<ArchiveFile> file_;
  uint64_t size_bytes_ = 0;
};

}  // namespace

grpc::ServerWriteReactor<v1::ExportSessionResponse>* StartExport(
    const ServiceContext& context, grpc::CallbackServerContext& call,
    const v1::ExportSessionRequest& request) {
  return new ExportStream(context, call, request);
}

grpc::ServerReadReactor<v1::ImportSessionRequest>* StartImport(const ServiceContext& context,
                                                               grpc::CallbackServerContext& call,
                                                               v1::Session* response) {
  return new ImportStream(context, call, response);
}

}  // namespace mneme
