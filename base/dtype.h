#ifndef MNEME_BASE_DTYPE_H_
#define MNEME_BASE_DTYPE_H_

#include <bit>
#include <cstdint>

namespace mneme {

// Element types of tensors, in files and on devices.
enum class DType : uint8_t { kF32, kF16, kBF16 };

// Bytes of one element.
int64_t SizeOf(DType dtype);

// "F32", "F16", "BF16": the spelling of safetensors.
const char* NameOf(DType dtype);

// The float32 whose upper half is `bits`; exact.
inline float BFloat16ToFloat(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

// Rounds to nearest, ties to even; NaN stays NaN.
uint16_t FloatToBFloat16(float value);

// The float32 of an IEEE 754 binary16; exact, subnormals and infinities included.
float Float16ToFloat(uint16_t bits);

// Converts `count` elements of `dtype` at `source` (no alignment required) to float32.
void ConvertToFloat(const void* source, DType dtype, int64_t count, float* destination);

}  // namespace mneme

#endif  // MNEME_BASE_DTYPE_H_
