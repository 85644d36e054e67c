#ifndef MNEME_KERNELS_DELTA_TYPE_H_
#define MNEME_KERNELS_DELTA_TYPE_H_

#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"

namespace mneme {

// What a ΔW's elements are kept in.
enum class DeltaType : uint8_t { kFloat32, kBFloat16, kFp8E4M3 };

// "fp32", "bf16", "fp8_e4m3": the spelling of flags and messages.
const char* NameOf(DeltaType type);

// The type of that name; nothing for another name.
std::optional<DeltaType> ParseDeltaType(absl::string_view name);

// Bytes of one element.
int64_t SizeOf(DeltaType type);

}  // namespace mneme

#endif  // MNEME_KERNELS_DELTA_TYPE_H_
