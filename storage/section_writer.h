#ifndef MNEME_STORAGE_SECTION_WRITER_H_
#define MNEME_STORAGE_SECTION_WRITER_H_

#include <xxhash.h>

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "storage/crypto.h"
#include "storage/files.h"
#include "storage/sections.h"
#include "storage/store_id.h"

namespace mneme {

// Writes a file of sections to a sink, holding one frame at a time. One thread.
class SectionWriter {
 public:
  // `key` seals; without one every section is in the clear. `sink` must outlive the writer. With
  // one key no two files of different content may have the same salt.
  SectionWriter(absl::string_view magic, const StoreId& subject,
                const std::optional<SecretKey>& key, ByteSink& sink,
                std::string salt = RandomBytes(kSaltBytes));

  // A section of `length` bytes, which must be appended before the next section. Sealed if there
  // is a key, unless `in_the_clear`. The sink's errors.
  absl::Status Begin(SectionKind kind, uint32_t index, uint64_t length, bool in_the_clear = false);
  absl::Status Append(absl::string_view bytes);
  // Both at once.
  absl::Status Write(SectionKind kind, uint32_t index, absl::string_view content,
                     bool in_the_clear = false);
  // The end. Once, after the last section is whole.
  absl::Status Finish();

 private:
  struct FreeHash {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };

  absl::Status WriteHeader();
  absl::Status FlushFrame();
  absl::Status EndSection();

  const std::string magic_;
  const StoreId subject_;
  const std::string salt_;
  const uint64_t key_id_;                    // 0: no key
  const std::optional<SecretKey> file_key_;  // of this file alone
  ByteSink& sink_;
  bool header_written_ = false;

  SectionHead head_;
  uint32_t section_ = 0;  // number of the open one, or the next
  uint64_t missing_ = 0;  // bytes of the open section still to be appended
  uint64_t frame_ = 0;    // number of the next frame
  std::string buffer_;    // of it
  std::string sealed_;
  std::unique_ptr<XXH3_state_t, FreeHash> checksum_{XXH3_createState()};  // of the frames
};

}  // namespace mneme

#endif  // MNEME_STORAGE_SECTION_WRITER_H_
