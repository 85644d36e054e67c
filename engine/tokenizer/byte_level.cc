#include "engine/tokenizer/byte_level.h"

#include <array>

#include "engine/tokenizer/utf8.h"

namespace mneme {
namespace {

constexpr bool IsPrintable(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD);
}

// Code point of each byte.
constexpr std::array<uint16_t, 256> MakeSpellings() {
  std::array<uint16_t, 256> spellings{};
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    spellings[static_cast<size_t>(byte)] = static_cast<uint16_t>(IsPrintable(byte) ? byte : next++);
  }
  return spellings;
}

constexpr std::array<uint16_t, 256> kSpellings = MakeSpellings();
constexpr size_t kSpellingEnd = 0x100 + 68;

// Byte of each code point below kSpellingEnd, -1 where it spells none.
constexpr std::array<int16_t, kSpellingEnd> MakeBytes() {
  std::array<int16_t, kSpellingEnd> bytes{};
  for (int16_t& byte : bytes) byte = -1;
  for (size_t byte = 0; byte < 256; ++byte) bytes[kSpellings[byte]] = static_cast<int16_t>(byte);
  return bytes;
}

constexpr std::array<int16_t, kSpellingEnd> kBytes = MakeBytes();

}  // namespace

std::optional<std::string> BytesOfSpelling(absl::string_view spelling) {
  std::string bytes;
  while (!spelling.empty()) {
    const Utf8Step step = ReadUtf8(spelling);
    if (step.code_point >= kSpellingEnd || kBytes[step.code_point] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(kBytes[step.code_point]));
    spelling.remove_prefix(step.length);
  }
  return bytes;
}

std::string SpellingOfByte(uint8_t byte) {
  const uint16_t code_point = kSpellings[byte];
  if (code_point < 0x80) return std::string(1, static_cast<char>(code_point));
  return {static_cast<char>(0xC0 | (code_point >> 6)),
          static_cast<char>(0x80 | (code_point & 0x3F))};
}

}  // namespace mneme
