#include "engine/tokenizer/utf8.h"

#include <cstdint>

namespace mneme {
namespace {

constexpr absl::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// What a lead byte asks for: how many bytes in all, and in which range the second lies.
struct Lead {
  size_t length;  // 0: no lead byte
  uint8_t second_min;
  uint8_t second_max;
};

Lead ReadLead(uint8_t byte) {
  if (byte >= 0xC2 && byte <= 0xDF) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte >= 0xE1 && byte <= 0xEF) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte >= 0xF1 && byte <= 0xF3) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

// Appends the text of the front of `bytes` until its end or an incomplete code point; returns how
// many bytes it took.
size_t AppendLossy(absl::string_view bytes, std::string* text) {
  size_t taken = 0;
  while (taken < bytes.size()) {
    const absl::string_view rest = bytes.substr(taken);
    const Utf8Step step = ReadUtf8(rest);
    if (step.kind == Utf8Step::Kind::kIncomplete) break;
    const absl::string_view piece =
        step.kind == Utf8Step::Kind::kCodePoint ? rest.substr(0, step.length) : kReplacement;
    text->append(piece.data(), piece.size());
    taken += step.length;
  }
  return taken;
}

}  // namespace

Utf8Step ReadUtf8(absl::string_view bytes) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  if (byte(0) < 0x80) return {Utf8Step::Kind::kCodePoint, 1, byte(0)};
  const Lead lead = ReadLead(byte(0));
  if (lead.length == 0) return {Utf8Step::Kind::kInvalid, 1, 0};
  char32_t code_point = byte(0) & (0x7Fu >> lead.length);
  for (size_t i = 1; i < lead.length; ++i) {
    if (i == bytes.size()) return {Utf8Step::Kind::kIncomplete, i, 0};
    const uint8_t min = i == 1 ? lead.second_min : uint8_t{0x80};
    const uint8_t max = i == 1 ? lead.second_max : uint8_t{0xBF};
    if (byte(i) < min || byte(i) > max) return {Utf8Step::Kind::kInvalid, i, 0};
    code_point = (code_point << 6) | (byte(i) & 0x3Fu);
  }
  return {Utf8Step::Kind::kCodePoint, lead.length, code_point};
}

bool IsValidUtf8(absl::string_view bytes) {
  while (!bytes.empty()) {
    const Utf8Step step = ReadUtf8(bytes);
    if (step.kind != Utf8Step::Kind::kCodePoint) return false;
    bytes.remove_prefix(step.length);
  }
  return true;
}

std::string Utf8Lossy(absl::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  if (AppendLossy(bytes, &text) < bytes.size()) {
    text.append(kReplacement.data(), kReplacement.size());
  }
  return text;
}

void DrainUtf8(std::string* bytes, std::string* text) {
  bytes->erase(0, AppendLossy(*bytes, text));
}

}  // namespace mneme
