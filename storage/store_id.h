#ifndef MNEME_STORAGE_STORE_ID_H_
#define MNEME_STORAGE_STORE_ID_H_

#include <array>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace mneme {

// What a session's key, records and files are named by: 128 random bits, never used again, that say
// nothing of its tenant or its id.
struct StoreId {
  static constexpr size_t kBytes = 16;

  static StoreId Random();
  // Nothing if it is not what ToHex gives.
  static std::optional<StoreId> FromHex(absl::string_view hex);
  // `bytes` must hold kBytes.
  static StoreId FromBytes(absl::string_view bytes);

  std::string ToHex() const;
  absl::string_view view() const { return {bytes.data(), bytes.size()}; }

  friend bool operator==(const StoreId&, const StoreId&) = default;
  friend bool operator<(const StoreId& a, const StoreId& b) { return a.bytes < b.bytes; }
  template <typename H>
  friend H AbslHashValue(H state, const StoreId& id) {
    return H::combine(std::move(state), id.view());
  }

  std::array<char, kBytes> bytes{};
};

}  // namespace mneme

#endif  // MNEME_STORAGE_STORE_ID_H_
