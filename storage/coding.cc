#include "storage/coding.h"

#include <bit>

#include "absl/strings/str_cat.h"

namespace mneme {

static_assert(std::endian::native == std::endian::little, "files are little-endian");

void ByteWriter::Varint(uint64_t value) {
  while (value >= 0x80) {
    bytes_.push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  bytes_.push_back(static_cast<char>(value));
}

void ByteWriter::String(absl::string_view value) {
  Varint(value.size());
  Raw(value);
}

bool ByteReader::Require(size_t size) {
  if (rest_.size() < size) ok_ = false;
  return ok_;
}

bool ByteReader::Bool() {
  const auto value = Fixed<uint8_t>();
  if (value > 1) Fail();
  return value == 1;
}

uint64_t ByteReader::Varint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const auto byte = Fixed<uint8_t>();
    if (shift == 63 && byte > 1) break;
    value |= static_cast<uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return ok_ ? value : 0;
  }
  Fail();
  return 0;
}

std::string ByteReader::String() { return std::string(Raw(Count(1))); }

absl::string_view ByteReader::Raw(size_t size) {
  if (!Require(size)) return {};
  const absl::string_view bytes = rest_.substr(0, size);
  rest_.remove_prefix(size);
  return bytes;
}

size_t ByteReader::Count(size_t element_bytes) {
  const uint64_t count = Varint();
  if (count > rest_.size() / element_bytes) Fail();
  return ok_ ? static_cast<size_t>(count) : 0;
}

absl::Status ByteReader::Finish(const std::string& what) const {
  if (ok_ && rest_.empty()) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat(what, ok_ ? " has bytes behind its end" : " cannot be decoded"));
}

}  // namespace mneme
