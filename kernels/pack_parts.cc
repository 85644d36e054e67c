#include "kernels/pack_parts.h"

#include <cstdint>
#include <limits>

#include "absl/strings/str_cat.h"

namespace mneme {

absl::Status CheckPackParts(absl::Span<const HostTensor> parts) {
  int64_t rows = 0;
  for (const HostTensor& part : parts) {
    if (part.rows <= 0 || part.cols <= 0 || part.cols != parts[0].cols || part.data == nullptr ||
        part.rows > std::numeric_limits<int32_t>::max() - rows ||
        part.cols > std::numeric_limits<int32_t>::max()) {
      return absl::InvalidArgumentError(
          absl::StrCat("cannot pack a weight part [", part.rows, ", ", part.cols,
                       "]: parts need data, positive sizes and the same columns"));
    }
    rows += part.rows;
  }
  if (parts.empty()) return absl::InvalidArgumentError("cannot pack a weight without parts");
  return absl::OkStatus();
}

}  // namespace mneme
