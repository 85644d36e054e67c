#include "engine/loading/safetensors.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/loading/safetensors_header.h"

namespace mneme {
namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // as the reference implementation

absl::Status TensorError(const SafetensorsEntry& entry, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("tensor ", QuotedName(entry.name), " ", what));
}

absl::StatusOr<absl::string_view> FindHeader(absl::Span<const uint8_t> bytes) {
  if (bytes.size() < kLengthBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the file has ", bytes.size(), " bytes, too few for a safetensors header"));
  }
  uint64_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) length |= uint64_t{bytes[i]} << (8 * i);
  if (length > kMaxHeaderBytes || length > bytes.size() - kLengthBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the header's length of ", length,
                                                   " bytes is beyond the file's ", bytes.size(),
                                                   " bytes or the limit of ", kMaxHeaderBytes));
  }
  return absl::string_view(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes,
                           static_cast<size_t>(length));
}

// The bytes that the entry's shape and dtype take.
absl::StatusOr<int64_t> DeclaredBytes(const SafetensorsEntry& entry) {
  int64_t bytes = SafetensorsElementBytes(entry.dtype);
  for (const int64_t dimension : entry.shape) {
    if (__builtin_mul_overflow(bytes, dimension, &bytes)) {
      return TensorError(entry, "has a shape whose size overflows");
    }
  }
  return bytes;
}

absl::Status CheckEntry(const SafetensorsEntry& entry, int64_t data_bytes) {
  if (entry.begin > entry.end || entry.end > data_bytes) {
    return TensorError(entry, absl::StrCat("has data_offsets [", entry.begin, ", ", entry.end,
                                           "] outside of the ", data_bytes, " bytes of data"));
  }
  MNEME_ASSIGN_OR_RETURN(const int64_t declared, DeclaredBytes(entry));
  if (entry.end - entry.begin != declared) {
    return TensorError(
        entry, absl::StrCat("has ", entry.end - entry.begin, " bytes, but its shape and dtype ",
                            entry.dtype, " take ", declared));
  }
  return absl::OkStatus();
}

// Checks every entry, and that together they cover the data once. Sorts them by offset.
absl::Status CheckLayout(std::vector<SafetensorsEntry>& entries, int64_t data_bytes) {
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  });
  int64_t covered = 0;
  for (const SafetensorsEntry& entry : entries) {
    MNEME_RETURN_IF_ERROR(CheckEntry(entry, data_bytes));
    if (entry.begin < covered) return TensorError(entry, "overlaps another tensor");
    if (entry.begin > covered) return TensorError(entry, "leaves a hole before it");
    covered = entry.end;
  }
  if (covered == data_bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(data_bytes - covered, " bytes after the last tensor belong to none"));
}

absl::StatusOr<std::map<std::string, SafetensorsTensor>> ParseTensors(
    absl::Span<const uint8_t> bytes) {
  MNEME_ASSIGN_OR_RETURN(const absl::string_view header, FindHeader(bytes));
  MNEME_ASSIGN_OR_RETURN(std::vector<SafetensorsEntry> entries, ParseSafetensorsHeader(header));
  const absl::Span<const uint8_t> data = bytes.subspan(kLengthBytes + header.size());
  MNEME_RETURN_IF_ERROR(CheckLayout(entries, static_cast<int64_t>(data.size())));
  std::map<std::string, SafetensorsTensor> tensors;
  for (SafetensorsEntry& entry : entries) {
    const auto content = data.subspan(static_cast<size_t>(entry.begin),
                                      static_cast<size_t>(entry.end - entry.begin));
    tensors[std::move(entry.name)] = {std::move(entry.dtype), std::move(entry.shape), content};
  }
  return tensors;
}

}  // namespace

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::filesystem::path& path) {
  MNEME_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  MNEME_ASSIGN_OR_RETURN(SafetensorsFile result, FromBytes(file.bytes(), path.string()));
  result.file_ = std::move(file);
  return result;
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::FromBytes(absl::Span<const uint8_t> bytes,
                                                           const std::string& name) {
  auto tensors = ParseTensors(bytes);
  if (!tensors.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": ", tensors.status().message()));
  }
  SafetensorsFile result;
  result.tensors_ = *std::move(tensors);
  return result;
}

const SafetensorsTensor* SafetensorsFile::Find(absl::string_view name) const {
  const auto found = tensors_.find(std::string(name));
  return found == tensors_.end() ? nullptr : &found->second;
}

}  // namespace mneme
