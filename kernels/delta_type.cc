#include "kernels/delta_type.h"

namespace mneme {

const char* NameOf(DeltaType type) {
  switch (type) {
    case DeltaType::kFloat32:
      return "fp32";
    case DeltaType::kBFloat16:
      return "bf16";
    case DeltaType::kFp8E4M3:
      return "fp8_e4m3";
  }
  return "unknown";
}

std::optional<DeltaType> ParseDeltaType(absl::string_view name) {
  for (const DeltaType type : {DeltaType::kFloat32, DeltaType::kBFloat16, DeltaType::kFp8E4M3}) {
    if (name == NameOf(type)) return type;
  }
  return std::nullopt;
}

int64_t SizeOf(DeltaType type) {
  switch (type) {
    case DeltaType::kFloat32:
      return 4;
    case DeltaType::kBFloat16:
      return 2;
    case DeltaType::kFp8E4M3:
      return 1;
  }
  return 0;
}

}  // namespace mneme
