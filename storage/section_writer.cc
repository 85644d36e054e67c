#include "storage/section_writer.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/status_macros.h"
#include "storage/coding.h"

namespace mneme {

SectionWriter::SectionWriter(absl::string_view magic, const StoreId& subject,
                             const std::optional<SecretKey>& key, ByteSink& sink, std::string salt)
    : magic_(magic),
      subject_(subject),
      salt_(std::move(salt)),
      key_id_(key ? KeyId(*key) : 0),
      file_key_(key ? std::make_optional(key->Derive(salt_, magic)) : std::nullopt),
      sink_(sink) {}

absl::Status SectionWriter::WriteHeader() {
  ByteWriter header;
  header.Raw(magic_);
  header.Fixed(kSectionFormatVersion);
  header.Raw(subject_.view());
  header.Fixed(key_id_);
  header.Raw(salt_);
  header.Fixed(Checksum(header.bytes()));
  header_written_ = true;
  return sink_.Append(header.bytes());
}

absl::Status SectionWriter::Begin(SectionKind kind, uint32_t index, uint64_t length,
                                  bool in_the_clear) {
  MNEME_CHECK(missing_ == 0);
  if (!header_written_) MNEME_RETURN_IF_ERROR(WriteHeader());
  head_ = {.kind = kind,
           .index = index,
           .length = length,
           .sealed = file_key_.has_value() && !in_the_clear};
  missing_ = length;
  frame_ = 0;
  XXH3_64bits_reset(checksum_.get());
  ByteWriter head;
  head.Fixed(head_.kind);
  head.Fixed(head_.index);
  head.Fixed(head_.length);
  head.Bool(head_.sealed);
  head.Fixed(Checksum(head.bytes()));
  MNEME_RETURN_IF_ERROR(sink_.Append(head.bytes()));
  return length == 0 ? EndSection() : absl::OkStatus();
}

absl::Status SectionWriter::Append(absl::string_view bytes) {
  MNEME_CHECK(bytes.size() <= missing_);
  missing_ -= bytes.size();
  while (!bytes.empty()) {
    const size_t count = std::min(bytes.size(), kFrameBytes - buffer_.size());
    buffer_.append(bytes.data(), count);
    bytes.remove_prefix(count);
    if (buffer_.size() == kFrameBytes) MNEME_RETURN_IF_ERROR(FlushFrame());
  }
  return missing_ == 0 ? EndSection() : absl::OkStatus();
}

absl::Status SectionWriter::Write(SectionKind kind, uint32_t index, absl::string_view content,
                                  bool in_the_clear) {
  MNEME_RETURN_IF_ERROR(Begin(kind, index, content.size(), in_the_clear));
  return content.empty() ? absl::OkStatus() : Append(content);
}

absl::Status SectionWriter::FlushFrame() {
  const std::string* stored = &buffer_;
  if (head_.sealed) {
    sealed_.clear();
    Seal(*file_key_, FrameNonce(section_, frame_), FrameBinding(subject_, section_, head_, frame_),
         buffer_, &sealed_);
    stored = &sealed_;
  }
  ++frame_;
  XXH3_64bits_update(checksum_.get(), stored->data(), stored->size());
  const absl::Status status = sink_.Append(*stored);
  buffer_.clear();
  return status;
}

absl::Status SectionWriter::EndSection() {
  if (frame_ < head_.frames()) MNEME_RETURN_IF_ERROR(FlushFrame());
  ++section_;
  ByteWriter tail;
  tail.Fixed<uint64_t>(XXH3_64bits_digest(checksum_.get()));
  return sink_.Append(tail.bytes());
}

absl::Status SectionWriter::Finish() {
  ByteWriter count;
  count.Fixed<uint64_t>(section_);
  return Write(SectionKind::kEnd, 0, count.bytes());
}

}  // namespace mneme
