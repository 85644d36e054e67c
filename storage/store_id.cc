#include "storage/store_id.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "base/check.h"
#include "storage/crypto.h"

namespace mneme {

StoreId StoreId::Random() { return FromBytes(RandomBytes(kBytes)); }

std::optional<StoreId> StoreId::FromHex(absl::string_view hex) {
  const bool digits = std::all_of(hex.begin(), hex.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
  });
  if (hex.size() != 2 * kBytes || !digits) return std::nullopt;
  return FromBytes(absl::HexStringToBytes(hex));
}

StoreId StoreId::FromBytes(absl::string_view bytes) {
  MNEME_CHECK(bytes.size() >= kBytes);
  StoreId id;
  std::copy_n(bytes.begin(), kBytes, id.bytes.begin());
  return id;
}

std::string StoreId::ToHex() const { return absl::BytesToHexString(view()); }

}  // namespace mneme
