#ifndef MNEME_BASE_MAPPED_FILE_H_
#define MNEME_BASE_MAPPED_FILE_H_

#include <cstdint>
#include <filesystem>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace mneme {

// A regular file mapped read-only; unmapped with its owner. Move-only. Any thread may read it. A
// file that another program shortens meanwhile raises SIGBUS: models are not edited in place.
class MappedFile {
 public:
  // NOT_FOUND or PERMISSION_DENIED as the system says; INVALID_ARGUMENT if it is no regular file.
  static absl::StatusOr<MappedFile> Open(const std::filesystem::path& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  absl::Span<const uint8_t> bytes() const { return {data_, size_bytes_}; }
  absl::string_view text() const { return {reinterpret_cast<const char*>(data_), size_bytes_}; }

 private:
  MappedFile(const uint8_t* data, size_t size_bytes) : data_(data), size_bytes_(size_bytes) {}

  const uint8_t* data_ = nullptr;  // null if the file is empty
  size_t size_bytes_ = 0;
};

}  // namespace mneme

#endif  // MNEME_BASE_MAPPED_FILE_H_
