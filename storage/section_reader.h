#ifndef MNEME_STORAGE_SECTION_READER_H_
#define MNEME_STORAGE_SECTION_READER_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "storage/crypto.h"
#include "storage/files.h"
#include "storage/sections.h"
#include "storage/store_id.h"

namespace mneme {

// Reads a file of sections, holding one frame at a time. Whatever its bytes, a status says what is
// wrong and with which section, and nothing is allocated that they cannot hold. One thread.
class SectionReader {
 public:
  // `name` is for messages; `source` must outlive the reader. DATA_LOSS if it does not begin with
  // such a header, FAILED_PRECONDITION if it is of another format version.
  static absl::StatusOr<SectionReader> Open(absl::string_view magic, std::string name,
                                            const ByteSource& source);

  const StoreId& subject() const { return subject_; }
  const std::string& name() const { return name_; }
  // Of this file alone.
  const std::string& salt() const { return salt_; }
  bool sealed() const { return key_id_ != 0; }
  // Needed to read sealed sections. FAILED_PRECONDITION if the file was sealed with another key,
  // or with none.
  absl::Status UseKey(const SecretKey& key);

  // Goes to the next section, skipping what is left of this one; nothing at the end, which is
  // verified if it can be. DATA_LOSS.
  absl::StatusOr<std::optional<SectionHead>> Next();
  // The section's next `count` bytes, authenticated. DATA_LOSS if they are damaged, were sealed for
  // another place, or are not as many; FAILED_PRECONDITION if the section is sealed and there is no
  // key.
  absl::Status Read(size_t count, char* destination);
  // All that is left of it. DATA_LOSS if that is more than `max_bytes`.
  absl::StatusOr<std::string> ReadAll(uint64_t max_bytes);
  uint64_t remaining() const { return remaining_; }

 private:
  SectionReader(std::string name, const ByteSource& source)
      : name_(std::move(name)), source_(&source) {}

  absl::Status ReadHeader(absl::string_view magic);
  absl::StatusOr<SectionHead> ReadSectionHead();
  absl::Status CheckEnd();
  absl::Status ReadFrame();
  // Whether the stored section has the checksum that stands behind it.
  absl::StatusOr<bool> ChecksumFits() const;
  absl::Status Damaged(absl::string_view why) const;

  std::string name_;
  const ByteSource* source_;
  std::string magic_;
  StoreId subject_;
  uint64_t key_id_ = 0;
  std::string salt_;
  std::optional<SecretKey> file_key_;

  SectionHead head_;
  bool in_section_ = false;
  uint32_t section_ = 0;       // number of the open one, or the next
  uint64_t begin_ = 0;         // where its frames begin
  uint64_t next_section_ = 0;  // where the next section's head begins
  uint64_t frame_ = 0;         // number of the next frame
  uint64_t remaining_ = 0;     // bytes of the section not read yet
  std::string content_;        // of the last frame
  size_t content_read_ = 0;
};

}  // namespace mneme

#endif  // MNEME_STORAGE_SECTION_READER_H_
