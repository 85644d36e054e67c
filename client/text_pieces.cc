#include "client/text_pieces.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace mneme {
namespace {

constexpr size_t kMaxCharacterBytes = 4;

bool IsSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool IsLineEnd(char c) { return c == '\n' || c == '\r'; }
bool IsContinuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

// The length in bytes of the valid character that `text` begins with; 0 if there is none.
size_t CharacterLength(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  if (byte(0) < 0x80) return 1;
  const size_t length = byte(0) >= 0xF0 ? 4 : byte(0) >= 0xE0 ? 3 : 2;
  if (byte(0) < 0xC2 || byte(0) > 0xF4 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if (!IsContinuation(text[i])) return 0;
  }
  const bool overlong = (byte(0) == 0xE0 && byte(1) < 0xA0) || (byte(0) == 0xF0 && byte(1) < 0x90);
  const bool surrogate = byte(0) == 0xED && byte(1) > 0x9F;
  const bool beyond_unicode = byte(0) == 0xF4 && byte(1) > 0x8F;
  return overlong || surrogate || beyond_unicode ? 0 : length;
}

bool KeepsTokens(std::string_view text, size_t cut) {
  const char before = text[cut - 1];
  const char after = text[cut];
  if (IsLineEnd(before)) return !IsSpace(after);
  return after == ' ' && !IsSpace(before) && cut + 1 < text.size() && !IsSpace(text[cut + 1]);
}

}  // namespace

size_t ValidUtf8Prefix(std::string_view text) {
  size_t valid = 0;
  while (valid < text.size()) {
    const size_t length = CharacterLength(text.substr(valid));
    if (length == 0) break;
    valid += length;
  }
  return valid;
}

size_t CutPosition(std::string_view text, size_t limit) {
  for (size_t cut = limit; cut > 0; --cut) {
    if (KeepsTokens(text, cut)) return cut;
  }
  size_t cut = limit;
  while (cut > 0 && IsContinuation(text[cut])) --cut;
  return cut > 0 ? cut : CharacterLength(text);
}

absl::StatusOr<std::string> TextPieces::Next() {
  // Two bytes beyond the piece show what stands after a cut, the rest completes a character.
  const size_t wanted = piece_bytes_ + 2 + kMaxCharacterBytes;
  if (buffer_.size() < wanted && in_) {
    const size_t held = buffer_.size();
    buffer_.resize(wanted);
    in_.read(buffer_.data() + held, static_cast<std::streamsize>(wanted - held));
    buffer_.resize(held + static_cast<size_t>(in_.gcount()));
  }
  if (in_.bad()) return absl::DataLossError("the input cannot be read");
  const size_t valid = ValidUtf8Prefix(buffer_);
  const bool at_end = buffer_.size() < wanted;
  if (valid < buffer_.size() && (at_end || valid + kMaxCharacterBytes <= buffer_.size())) {
    return absl::InvalidArgumentError(
        absl::StrCat("the input is not UTF-8 at byte ", given_bytes_ + valid));
  }
  const size_t length =
      buffer_.size() <= piece_bytes_ ? buffer_.size() : CutPosition(buffer_, piece_bytes_);
  std::string piece = buffer_.substr(0, length);
  buffer_.erase(0, length);
  given_bytes_ += length;
  return piece;
}

}  // namespace mneme
