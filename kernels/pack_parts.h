#ifndef MNEME_KERNELS_PACK_PARTS_H_
#define MNEME_KERNELS_PACK_PARTS_H_

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/backend.h"

namespace mneme {

// INVALID_ARGUMENT unless Backend::Pack can take `parts`: at least one, each with data and rows,
// all with the same columns, and no more rows or columns in all than int32 counts.
absl::Status CheckPackParts(absl::Span<const HostTensor> parts);

}  // namespace mneme

#endif  // MNEME_KERNELS_PACK_PARTS_H_
