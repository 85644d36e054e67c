#include "base/dtype.h"

#include <cmath>
#include <cstring>

#include "base/check.h"

namespace mneme {
namespace {

template <typename Convert>
void ConvertHalves(const void* source, int64_t count, float* destination, Convert convert) {
  const char* bytes = static_cast<const char*>(source);
  for (int64_t i = 0; i < count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, bytes + 2 * i, sizeof bits);
    destination[i] = convert(bits);
  }
}

}  // namespace

int64_t SizeOf(DType dtype) { return dtype == DType::kF32 ? 4 : 2; }

const char* NameOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "F32";
    case DType::kF16:
      return "F16";
    case DType::kBF16:
      return "BF16";
  }
  MNEME_CHECK(false);
}

uint16_t FloatToBFloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

float Float16ToFloat(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1f;
  const uint32_t mantissa = bits & 0x3ff;
  if (exponent == 0) {  // zero or subnormal: mantissa · 2⁻²⁴
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return sign != 0 ? -magnitude : magnitude;
  }
  const uint32_t wide_exponent = exponent == 0x1f ? 0xff : exponent + 112;
  return std::bit_cast<float>(sign | (wide_exponent << 23) | (mantissa << 13));
}

void ConvertToFloat(const void* source, DType dtype, int64_t count, float* destination) {
  switch (dtype) {
    case DType::kF32:
      std::memcpy(destination, source, static_cast<size_t>(count) * sizeof(float));
      return;
    case DType::kF16:
      return ConvertHalves(source, count, destination, Float16ToFloat);
    case DType::kBF16:
      return ConvertHalves(source, count, destination, BFloat16ToFloat);
  }
}

}  // namespace mneme
