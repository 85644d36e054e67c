#ifndef MNEME_STORAGE_CODING_H_
#define MNEME_STORAGE_CODING_H_

// How values become bytes in records and files: little-endian, fixed sizes but for counts, which
// are varints. Whatever the bytes, decoding stays inside them and allocates no more than they hold.

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace mneme {

class ByteWriter {
 public:
  // Of an integer, floating-point or enumeration type.
  template <typename T>
  void Fixed(T value) {
    static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void Bool(bool value) { Fixed<uint8_t>(value ? 1 : 0); }
  void Varint(uint64_t value);
  void String(absl::string_view value);  // with its length
  void Raw(absl::string_view bytes) { bytes_.append(bytes.data(), bytes.size()); }
  // Count and elements.
  template <typename T>
  void Array(absl::Span<const T> values) {
    static_assert(std::is_arithmetic_v<T>);
    Varint(values.size());
    bytes_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  }

  const std::string& bytes() const { return bytes_; }
  std::string Take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

// Reads what a ByteWriter wrote. After bytes that are not there every value is zero or empty and
// ok() is false: callers decode a whole structure and then ask once.
class ByteReader {
 public:
  explicit ByteReader(absl::string_view bytes) : rest_(bytes) {}

  template <typename T>
  T Fixed() {
    T value{};
    if (Require(sizeof value)) {
      std::memcpy(&value, rest_.data(), sizeof value);
      rest_.remove_prefix(sizeof value);
    }
    return value;
  }
  bool Bool();
  uint64_t Varint();
  std::string String();
  absl::string_view Raw(size_t size);  // a view into the input
  template <typename Container>
  void Array(Container* values) {
    using T = typename Container::value_type;
    const size_t count = Count(sizeof(T));
    values->resize(count);
    if (count > 0) std::memcpy(values->data(), Raw(count * sizeof(T)).data(), count * sizeof(T));
  }
  // A count of elements of at least `element_bytes` each, so that what is left can hold them.
  size_t Count(size_t element_bytes);

  void Fail() { ok_ = false; }
  bool ok() const { return ok_; }
  size_t remaining() const { return rest_.size(); }
  // DATA_LOSS, naming `what`, unless everything was there and nothing is left.
  absl::Status Finish(const std::string& what) const;

 private:
  bool Require(size_t size);

  absl::string_view rest_;
  bool ok_ = true;
};

}  // namespace mneme

#endif  // MNEME_STORAGE_CODING_H_
