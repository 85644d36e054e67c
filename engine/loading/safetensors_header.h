#ifndef MNEME_ENGINE_LOADING_SAFETENSORS_HEADER_H_
#define MNEME_ENGINE_LOADING_SAFETENSORS_HEADER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace mneme {

// One tensor as the JSON header of a safetensors file declares it.
struct SafetensorsEntry {
  std::string name;
  std::string dtype;  // one of the format's names, such as "BF16"
  std::vector<int64_t> shape;
  int64_t begin = 0;  // bytes from the start of the data section
  int64_t end = 0;
};

// Parses the header, whose memory use is bounded by the text's. INVALID_ARGUMENT, with the tensor's
// name, for anything the format does not allow: another structure, a name or key given twice, an
// unknown dtype, a number that is negative or not an integer. `__metadata__` is skipped. Offsets
// are not yet compared with shapes or with each other.
absl::StatusOr<std::vector<SafetensorsEntry>> ParseSafetensorsHeader(absl::string_view json);

// Bytes of one element of a dtype that ParseSafetensorsHeader accepts.
int64_t SafetensorsElementBytes(absl::string_view dtype);

// `name` in quotes, escaped and shortened so that a hostile one does no harm in a log.
std::string QuotedName(absl::string_view name);

}  // namespace mneme

#endif  // MNEME_ENGINE_LOADING_SAFETENSORS_HEADER_H_
