#include "storage/section_reader.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "storage/coding.h"

namespace mneme {
namespace {

struct FreeHash {
  void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
};

// The bytes in front of a checksum that fits them, or nothing.
absl::string_view Checked(absl::string_view bytes) {
  const absl::string_view covered = bytes.substr(0, bytes.size() - kChecksumBytes);
  ByteReader checksum(bytes.substr(covered.size()));
  return checksum.Fixed<uint64_t>() == Checksum(covered) ? covered : absl::string_view();
}

}  // namespace

absl::StatusOr<SectionReader> SectionReader::Open(absl::string_view magic, std::string name,
                                                  const ByteSource& source) {
  SectionReader reader(std::move(name), source);
  MNEME_RETURN_IF_ERROR(reader.ReadHeader(magic));
  return reader;
}

absl::Status SectionReader::Damaged(absl::string_view why) const {
  const std::string where = in_section_ ? NameOf(head_.kind, head_.index) : "";
  return absl::DataLossError(
      absl::StrCat(name_, in_section_ ? ", section " : "", where, ": ", why));
}

absl::Status SectionReader::ReadHeader(absl::string_view magic) {
  std::string bytes(kHeaderBytes, '\0');
  if (source_->size() < bytes.size()) return Damaged("ends within its header");
  MNEME_RETURN_IF_ERROR(source_->ReadAt(0, bytes.size(), bytes.data()));
  ByteReader reader(bytes);
  if (reader.Raw(magic.size()) != magic) return Damaged(absl::StrCat("is no ", magic, " file"));
  const auto version = reader.Fixed<uint32_t>();
  if (Checked(bytes).empty()) return Damaged("its header is damaged");
  if (version != kSectionFormatVersion) {
    return absl::FailedPreconditionError(absl::StrCat(name_, " is of format version ", version,
                                                      "; this server reads version ",
                                                      kSectionFormatVersion));
  }
  magic_ = std::string(magic);
  subject_ = StoreId::FromBytes(reader.Raw(StoreId::kBytes));
  key_id_ = reader.Fixed<uint64_t>();
  salt_ = std::string(reader.Raw(kSaltBytes));
  next_section_ = kHeaderBytes;
  return absl::OkStatus();
}

absl::Status SectionReader::UseKey(const SecretKey& key) {
  if (key_id_ != KeyId(key)) {
    return absl::FailedPreconditionError(
        absl::StrCat(name_, key_id_ == 0 ? " is not sealed" : " is sealed with another key"));
  }
  file_key_ = key.Derive(salt_, magic_);
  return absl::OkStatus();
}

absl::StatusOr<SectionHead> SectionReader::ReadSectionHead() {
  const uint64_t size = source_->size();
  if (size - next_section_ < kSectionHeadBytes + kChecksumBytes) {
    return Damaged(absl::StrCat("ends where section number ", section_, " should be"));
  }
  std::string bytes(kSectionHeadBytes, '\0');
  MNEME_RETURN_IF_ERROR(source_->ReadAt(next_section_, bytes.size(), bytes.data()));
  ByteReader reader(bytes);
  SectionHead head;
  head.kind = reader.Fixed<SectionKind>();
  head.index = reader.Fixed<uint32_t>();
  head.length = reader.Fixed<uint64_t>();
  head.sealed = reader.Bool();
  if (Checked(bytes).empty() || !reader.ok()) {
    return Damaged(absl::StrCat("the head of section number ", section_, " is damaged"));
  }
  const uint64_t room = size - next_section_ - kSectionHeadBytes - kChecksumBytes;
  if (head.length > room || head.stored_bytes() > room) {
    return Damaged(absl::StrCat("ends within section ", NameOf(head.kind, head.index)));
  }
  return head;
}

absl::StatusOr<std::optional<SectionHead>> SectionReader::Next() {
  if (in_section_) ++section_;
  in_section_ = false;
  MNEME_ASSIGN_OR_RETURN(head_, ReadSectionHead());
  in_section_ = true;
  begin_ = next_section_ + kSectionHeadBytes;
  next_section_ = begin_ + head_.stored_bytes() + kChecksumBytes;
  frame_ = 0;
  remaining_ = head_.length;
  content_.clear();
  content_read_ = 0;
  if (!head_.sealed) {
    MNEME_ASSIGN_OR_RETURN(const bool fits, ChecksumFits());
    if (!fits) return Damaged("its checksum does not fit");
  } else if (remaining_ == 0 && file_key_) {
    MNEME_RETURN_IF_ERROR(ReadFrame());  // authenticates that it is empty
  }
  if (head_.kind != SectionKind::kEnd) return head_;
  MNEME_RETURN_IF_ERROR(CheckEnd());
  return std::nullopt;
}

absl::Status SectionReader::CheckEnd() {
  if (next_section_ != source_->size()) return Damaged("there are bytes behind it");
  if (head_.sealed && !file_key_) return absl::OkStatus();
  uint64_t count = 0;
  if (remaining_ != sizeof count) return Damaged("it is of a wrong length");
  char bytes[sizeof count];
  MNEME_RETURN_IF_ERROR(Read(sizeof count, bytes));
  std::memcpy(&count, bytes, sizeof count);
  return count == section_ ? absl::OkStatus() : Damaged("sections are missing");
}

absl::StatusOr<bool> SectionReader::ChecksumFits() const {
  const std::unique_ptr<XXH3_state_t, FreeHash> hash(XXH3_createState());
  XXH3_64bits_reset(hash.get());
  std::string bytes;
  for (uint64_t at = begin_, end = begin_ + head_.stored_bytes(); at < end; at += bytes.size()) {
    bytes.resize(static_cast<size_t>(std::min<uint64_t>(kFrameBytes, end - at)));
    MNEME_RETURN_IF_ERROR(source_->ReadAt(at, bytes.size(), bytes.data()));
    XXH3_64bits_update(hash.get(), bytes.data(), bytes.size());
  }
  char stored[kChecksumBytes];
  MNEME_RETURN_IF_ERROR(source_->ReadAt(begin_ + head_.stored_bytes(), sizeof stored, stored));
  return ByteReader({stored, sizeof stored}).Fixed<uint64_t>() == XXH3_64bits_digest(hash.get());
}

absl::Status SectionReader::ReadFrame() {
  const size_t tag = head_.sealed ? kTagBytes : 0;
  const auto size = static_cast<size_t>(std::min<uint64_t>(kFrameBytes, remaining_));
  std::string stored(size + tag, '\0');
  MNEME_RETURN_IF_ERROR(
      source_->ReadAt(begin_ + frame_ * (kFrameBytes + tag), stored.size(), stored.data()));
  content_read_ = 0;
  if (!head_.sealed) {
    content_ = std::move(stored);
  } else {
    content_.resize(size);
    if (!Unseal(*file_key_, FrameNonce(section_, frame_),
                FrameBinding(subject_, section_, head_, frame_), stored, content_.data())) {
      MNEME_ASSIGN_OR_RETURN(const bool fits, ChecksumFits());
      return Damaged(fits ? "it was sealed for another place"
                          : "its checksum does not fit: it is damaged");
    }
  }
  ++frame_;
  return absl::OkStatus();
}

absl::Status SectionReader::Read(size_t count, char* destination) {
  if (head_.sealed && !file_key_) {
    return absl::FailedPreconditionError(
        absl::StrCat(name_, ", section ", NameOf(head_.kind, head_.index),
                     ": it is sealed with a key that is not here"));
  }
  if (count > remaining_) return Damaged(absl::StrCat("it has only ", remaining_, " bytes more"));
  while (count > 0) {
    if (content_read_ == content_.size()) MNEME_RETURN_IF_ERROR(ReadFrame());
    const size_t part = std::min(count, content_.size() - content_read_);
    std::memcpy(destination, content_.data() + content_read_, part);
    content_read_ += part;
    remaining_ -= part;
    destination += part;
    count -= part;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> SectionReader::ReadAll(uint64_t max_bytes) {
  if (remaining_ > max_bytes) {
    return Damaged(absl::StrCat(remaining_, " bytes are more than its ", max_bytes));
  }
  std::string content(static_cast<size_t>(remaining_), '\0');
  MNEME_RETURN_IF_ERROR(Read(content.size(), content.data()));
  return content;
}

}  // namespace mneme
