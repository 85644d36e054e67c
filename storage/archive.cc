#include "storage/archive.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "storage/coding.h"
#include "storage/section_writer.h"
#include "storage/session_coding.h"

namespace mneme {
namespace {

// Passes on what comes behind the first `offset` bytes.
class SkippingSink : public ByteSink {
 public:
  SkippingSink(ByteSink& target, uint64_t offset) : target_(target), to_skip_(offset) {}

  absl::Status Append(absl::string_view bytes) override {
    const auto skipped = static_cast<size_t>(std::min<uint64_t>(bytes.size(), to_skip_));
    to_skip_ -= skipped;
    bytes.remove_prefix(skipped);
    return bytes.empty() ? absl::OkStatus() : target_.Append(bytes);
  }
  uint64_t to_skip() const { return to_skip_; }

 private:
  ByteSink& target_;
  uint64_t to_skip_;
};

std::string EncodeLog(const SessionMetadata& metadata, const SessionState& state) {
  return EncodeLogRecord({.epoch = state.epoch,
                          .position = state.position(),
                          .time = metadata.create_time,
                          .whole = true},
                         state.ToEvents());
}

// Copies the rest of a section.
template <typename Reader>
absl::Status CopySection(Reader& reader, const SectionHead& head, SectionWriter* writer) {
  MNEME_RETURN_IF_ERROR(writer->Begin(head.kind, head.index, head.length));
  std::string part;
  while (reader.remaining() > 0) {
    part.resize(static_cast<size_t>(std::min<uint64_t>(kFrameBytes, reader.remaining())));
    MNEME_RETURN_IF_ERROR(reader.Read(part.size(), part.data()));
    MNEME_RETURN_IF_ERROR(writer->Append(part));
  }
  return absl::OkStatus();
}

}  // namespace

ArchiveExport::ArchiveExport(const SessionMetadata& metadata, const SessionState& state,
                             CheckpointReader* checkpoint, const std::optional<SecretKey>& key)
    : metadata_(EncodeMetadata(metadata)),
      log_(EncodeLog(metadata, state)),
      key_(checkpoint != nullptr ? key : std::nullopt),
      checkpoint_(key_ ? checkpoint : nullptr) {
  // All that the bytes depend on, so that a salt never seals two contents.
  ByteWriter identity;
  identity.Fixed(kSectionFormatVersion);
  identity.Fixed<uint64_t>(kFrameBytes);
  identity.String(metadata_);
  identity.String(log_);
  if (checkpoint_ != nullptr) identity.String(checkpoint_->salt());
  const std::string digest = Sha256(identity.bytes());
  id_ = StoreId::FromBytes(Sha256(digest + "id"));
  salt_ = Sha256(digest + "salt");
}

absl::Status ArchiveExport::WriteTo(ByteSink& sink, uint64_t offset) {
  if (log_.size() > ArchiveReader::kMaxLogBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the session's log has ", log_.size(),
                                                   " bytes; in an archive it may have ",
                                                   ArchiveReader::kMaxLogBytes));
  }
  SkippingSink rest(sink, offset);
  SectionWriter writer(kArchiveMagic, id_, key_, rest, salt_);
  MNEME_RETURN_IF_ERROR(writer.Write(SectionKind::kMetadata, 0, metadata_, /*in_the_clear=*/true));
  MNEME_RETURN_IF_ERROR(writer.Write(SectionKind::kLog, 0, log_, /*in_the_clear=*/true));
  if (checkpoint_ != nullptr) MNEME_RETURN_IF_ERROR(CopyState(&writer));
  MNEME_RETURN_IF_ERROR(writer.Finish());
  if (rest.to_skip() == 0) return absl::OkStatus();
  return absl::OutOfRangeError(
      absl::StrCat("offset ", offset, " is ", rest.to_skip(), " bytes behind the archive's end"));
}

absl::Status ArchiveExport::CopyState(SectionWriter* writer) const {
  MNEME_RETURN_IF_ERROR(
      writer->Write(SectionKind::kInfo, 0, EncodeCheckpointInfo(checkpoint_->info())));
  while (true) {
    MNEME_ASSIGN_OR_RETURN(const std::optional<SectionHead> head, checkpoint_->Next());
    if (!head) return absl::OkStatus();
    MNEME_RETURN_IF_ERROR(CopySection(*checkpoint_, *head, writer));
  }
}

absl::StatusOr<ArchiveReader> ArchiveReader::Open(std::string name, const ByteSource& source) {
  MNEME_ASSIGN_OR_RETURN(SectionReader sections,
                         SectionReader::Open(kArchiveMagic, std::move(name), source));
  ArchiveReader reader(std::move(sections));
  MNEME_ASSIGN_OR_RETURN(const std::string metadata,
                         reader.Expect(SectionKind::kMetadata, kMaxMetadataBytes));
  MNEME_ASSIGN_OR_RETURN(reader.metadata_, DecodeMetadata(metadata));
  MNEME_ASSIGN_OR_RETURN(const std::string log, reader.Expect(SectionKind::kLog, kMaxLogBytes));
  MNEME_ASSIGN_OR_RETURN(const LogRecordHead head, ApplyLogRecord(log, &reader.state_));
  if (head.whole) return reader;
  return absl::DataLossError(absl::StrCat(reader.reader_.name(), ": its log is not whole"));
}

absl::StatusOr<std::string> ArchiveReader::Expect(SectionKind kind, uint64_t max_bytes) {
  MNEME_ASSIGN_OR_RETURN(const std::optional<SectionHead> head, reader_.Next());
  if (head && head->kind == kind && head->index == 0 && !head->sealed)
    return reader_.ReadAll(max_bytes);
  return absl::DataLossError(
      absl::StrCat(reader_.name(), ": section ", NameOf(kind, 0), " is missing"));
}

absl::StatusOr<std::optional<SectionHead>> ArchiveReader::NextSealed() {
  MNEME_ASSIGN_OR_RETURN(const std::optional<SectionHead> head, reader_.Next());
  if (!head || head->sealed) return head;
  return absl::FailedPreconditionError(absl::StrCat(
      reader_.name(), ", section ", NameOf(head->kind, head->index), ": it is not sealed"));
}

absl::StatusOr<std::unique_ptr<CheckpointWriter>> ArchiveReader::CopyState(
    const SecretKey& key, uint64_t model_fingerprint, const CreateCheckpoint& create) {
  if (!reader_.sealed()) {
    return absl::NotFoundError(absl::StrCat(reader_.name(), " holds no sealed state"));
  }
  MNEME_RETURN_IF_ERROR(reader_.UseKey(key));
  MNEME_ASSIGN_OR_RETURN(std::optional<SectionHead> head, NextSealed());
  if (!head || head->kind != SectionKind::kInfo) {
    return absl::DataLossError(absl::StrCat(reader_.name(), ": section info[0] is missing"));
  }
  MNEME_ASSIGN_OR_RETURN(const std::string bytes, reader_.ReadAll(kMaxCheckpointInfoBytes));
  MNEME_ASSIGN_OR_RETURN(const CheckpointInfo info, DecodeCheckpointInfo(bytes));
  MNEME_RETURN_IF_ERROR(CheckFits(info, state_, model_fingerprint));
  MNEME_ASSIGN_OR_RETURN(std::unique_ptr<CheckpointWriter> checkpoint, create(info));
  while (true) {
    MNEME_ASSIGN_OR_RETURN(head, NextSealed());
    if (!head) return checkpoint;
    MNEME_RETURN_IF_ERROR(CopySection(reader_, *head, &checkpoint->sections()));
  }
}

}  // namespace mneme
