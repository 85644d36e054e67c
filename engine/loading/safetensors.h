#ifndef MNEME_ENGINE_LOADING_SAFETENSORS_H_
#define MNEME_ENGINE_LOADING_SAFETENSORS_H_

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/mapped_file.h"

namespace mneme {

// A view of one tensor of a file.
struct SafetensorsTensor {
  std::string dtype;                // the format's name: "F32", "BF16", "I64"…
  std::vector<int64_t> shape;       // empty: a scalar
  absl::Span<const uint8_t> bytes;  // row-major, little-endian, of any alignment
};

// A file of named tensors in the safetensors format, checked as strictly as the format's reference
// implementation does: tensors fill the data section without overlap or hole. Immutable: any
// thread.
class SafetensorsFile {
 public:
  // Maps the file. NOT_FOUND if it is missing, INVALID_ARGUMENT with its name and the tensor's for
  // what breaks the format.
  static absl::StatusOr<SafetensorsFile> Open(const std::filesystem::path& path);

  // The same for memory, which must outlive the result. `name` stands in messages.
  static absl::StatusOr<SafetensorsFile> FromBytes(absl::Span<const uint8_t> bytes,
                                                   const std::string& name);

  // Null if there is none. Lives as long as the file; moving the file keeps it valid.
  const SafetensorsTensor* Find(absl::string_view name) const;

  const std::map<std::string, SafetensorsTensor>& tensors() const { return tensors_; }

 private:
  SafetensorsFile() = default;

  std::optional<MappedFile> file_;  // absent: the memory is the caller's
  std::map<std::string, SafetensorsTensor> tensors_;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_LOADING_SAFETENSORS_H_
