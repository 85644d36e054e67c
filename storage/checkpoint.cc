#include "storage/checkpoint.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "storage/coding.h"

namespace mneme {
namespace {

absl::Status DoesNotFit(const std::string& why) {
  return absl::FailedPreconditionError(absl::StrCat("the checkpoint is ", why));
}

}  // namespace

CheckpointInfo MakeCheckpointInfo(const SessionState& state, int64_t position,
                                  uint64_t model_fingerprint, bool has_kv) {
  const auto count = static_cast<size_t>(position);
  return {.model_fingerprint = model_fingerprint,
          .controls_fingerprint = ControlsFingerprint(state.controls, position),
          .log_hash = LogHash(absl::MakeSpan(state.tokens).first(count), state.updates),
          .position = position,
          .updates = static_cast<int64_t>(state.updates.size()),
          .epoch = state.epoch,
          .has_kv = has_kv};
}

absl::Status CheckFits(const CheckpointInfo& info, const SessionState& state,
                       uint64_t model_fingerprint) {
  if (info.model_fingerprint != model_fingerprint) return DoesNotFit("of another model");
  if (info.position < 0 || info.position > state.position()) {
    return DoesNotFit(absl::StrCat("at position ", info.position, ", behind the log's end at ",
                                   state.position()));
  }
  const auto updates = static_cast<size_t>(info.updates);
  if (info.updates < 0 || updates > state.updates.size() ||
      info.log_hash !=
          LogHash(absl::MakeSpan(state.tokens).first(static_cast<size_t>(info.position)),
                  absl::MakeSpan(state.updates).first(updates))) {
    return DoesNotFit("of another log");
  }
  // An update of before it that it does not hold could not be made good.
  if (updates < state.updates.size() && state.updates[updates].position < info.position) {
    return DoesNotFit("of another log");
  }
  if (info.controls_fingerprint != ControlsFingerprint(state.controls, info.position)) {
    return DoesNotFit("of other learning controls");
  }
  return absl::OkStatus();
}

std::string EncodeCheckpointInfo(const CheckpointInfo& info) {
  ByteWriter out;
  out.Fixed(info.model_fingerprint);
  out.Fixed(info.controls_fingerprint);
  out.Fixed(info.log_hash);
  out.Fixed(info.position);
  out.Fixed(info.updates);
  out.Fixed(info.epoch);
  out.Bool(info.has_kv);
  out.String(info.name);
  out.Fixed<int64_t>(absl::ToUnixMicros(info.create_time));
  return out.Take();
}

absl::StatusOr<CheckpointInfo> DecodeCheckpointInfo(absl::string_view bytes) {
  ByteReader in(bytes);
  CheckpointInfo info;
  info.model_fingerprint = in.Fixed<uint64_t>();
  info.controls_fingerprint = in.Fixed<uint64_t>();
  info.log_hash = in.Fixed<uint64_t>();
  info.position = in.Fixed<int64_t>();
  info.updates = in.Fixed<int64_t>();
  info.epoch = in.Fixed<uint32_t>();
  info.has_kv = in.Bool();
  info.name = in.String();
  info.create_time = absl::FromUnixMicros(in.Fixed<int64_t>());
  MNEME_RETURN_IF_ERROR(in.Finish("a checkpoint's info"));
  return info;
}

absl::StatusOr<std::unique_ptr<CheckpointWriter>> CheckpointWriter::Create(
    std::shared_ptr<FileSystem> files, const std::string& path, const StoreId& id,
    const SecretKey& key, const CheckpointInfo& info) {
  MNEME_ASSIGN_OR_RETURN(std::unique_ptr<AtomicFile> file,
                         AtomicFile::Create(std::move(files), path));
  std::unique_ptr<CheckpointWriter> writer(new CheckpointWriter(std::move(file), id, key));
  MNEME_RETURN_IF_ERROR(writer->sections_.Write(SectionKind::kInfo, 0, EncodeCheckpointInfo(info)));
  return writer;
}

absl::Status CheckpointWriter::Commit() {
  MNEME_RETURN_IF_ERROR(sections_.Finish());
  return file_->Commit();
}

absl::StatusOr<CheckpointReader> CheckpointReader::Open(std::string name, const ByteSource& source,
                                                        const StoreId& id, const SecretKey& key) {
  MNEME_ASSIGN_OR_RETURN(SectionReader sections,
                         SectionReader::Open(kCheckpointMagic, std::move(name), source));
  if (sections.subject() != id) {
    return absl::DataLossError(absl::StrCat(sections.name(), " is another session's"));
  }
  MNEME_RETURN_IF_ERROR(sections.UseKey(key));
  CheckpointReader reader(std::move(sections));
  MNEME_ASSIGN_OR_RETURN(const std::optional<SectionHead> head, reader.Next());
  if (!head || head->kind != SectionKind::kInfo) {
    return absl::DataLossError(
        absl::StrCat(reader.reader_.name(), " does not begin with its info"));
  }
  MNEME_ASSIGN_OR_RETURN(const std::string bytes, reader.ReadAll(kMaxCheckpointInfoBytes));
  MNEME_ASSIGN_OR_RETURN(reader.info_, DecodeCheckpointInfo(bytes));
  return reader;
}

absl::StatusOr<std::optional<SectionHead>> CheckpointReader::Next() {
  MNEME_ASSIGN_OR_RETURN(const std::optional<SectionHead> head, reader_.Next());
  if (!head || head->sealed) return head;
  return absl::DataLossError(absl::StrCat(reader_.name(), ", section ",
                                          NameOf(head->kind, head->index), ": it is not sealed"));
}

absl::Status CheckpointReader::Verify() {
  std::string part(kFrameBytes, '\0');
  while (true) {
    while (reader_.remaining() > 0) {
      const auto count = static_cast<size_t>(std::min<uint64_t>(part.size(), reader_.remaining()));
      MNEME_RETURN_IF_ERROR(Read(count, part.data()));
    }
    MNEME_ASSIGN_OR_RETURN(const std::optional<SectionHead> head, Next());
    if (!head) return absl::OkStatus();
  }
}

}  // namespace mneme
